/*
 * A hash table whose keys are bytes and whose values are pointers. Neither is copied: both must stay in place as long
 * as they are in the table. A table of zeros is empty. Two threads must not use a table at the same time.
 */
#ifndef _JLOG_HASH_H
#define _JLOG_HASH_H

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called with a key or a value that is removed from the table. */
typedef void (*JLogHashFreeFunc)(void *);

typedef struct _jlog_hash_bucket {
  const char *k;
  int klen;
  void *data;
  struct _jlog_hash_bucket *next;
} jlog_hash_bucket;

typedef struct {
  jlog_hash_bucket **buckets;
  u_int32_t table_size;
  u_int32_t initval;
  u_int32_t num_used_buckets;
  u_int32_t size; /* number of keys */
  unsigned dont_rebucket : 1;
  unsigned _spare : 31;
} jlog_hash_table;

#define JLOG_HASH_EMPTY \
  { NULL, 0, 0, 0, 0, 0, 0 }

/* The position of an iteration over a table. */
typedef struct {
  void *p2;
  int p1;
} jlog_hash_iter;

#define JLOG_HASH_ITER_ZERO \
  { NULL, 0 }

void jlog_hash_init(jlog_hash_table *h);
/* Adds a key. Returns 1, or 0 if the key exists already. */
int jlog_hash_store(jlog_hash_table *h, const char *k, int klen, void *data);
/* Adds a key, or replaces an existing one. Returns 1. */
int jlog_hash_replace(jlog_hash_table *h, const char *k, int klen, void *data, JLogHashFreeFunc keyfree,
                      JLogHashFreeFunc datafree);
/* Returns 1, with the value in *data unless data is NULL; or 0 if there is no such key. */
int jlog_hash_retrieve(jlog_hash_table *h, const char *k, int klen, void **data);
/* Returns 1, or 0 if there is no such key. */
int jlog_hash_delete(jlog_hash_table *h, const char *k, int klen, JLogHashFreeFunc keyfree,
                     JLogHashFreeFunc datafree);
void jlog_hash_delete_all(jlog_hash_table *h, JLogHashFreeFunc keyfree, JLogHashFreeFunc datafree);
void jlog_hash_destroy(jlog_hash_table *h, JLogHashFreeFunc keyfree, JLogHashFreeFunc datafree);

/* Gets the next key of an iteration that began with JLOG_HASH_ITER_ZERO. Returns 1, or 0 after the last key. The table must
 * not change meanwhile. */
int jlog_hash_next(jlog_hash_table *h, jlog_hash_iter *iter, const char **k, int *klen, void **data);
/* The same without an iterator: the first key, and the key after a given one. */
int jlog_hash_firstkey(jlog_hash_table *h, const char **k, int *klen);
int jlog_hash_nextkey(jlog_hash_table *h, const char **k, int *klen, const char *lk, int lklen);

u_int32_t jlog_hash__hash(const char *k, u_int32_t length, u_int32_t initval);
jlog_hash_bucket *jlog_hash__new_bucket(const char *k, int klen, void *data);
void jlog_hash__rebucket(jlog_hash_table *h, int newsize);

#ifdef __cplusplus
}
#endif

#endif
