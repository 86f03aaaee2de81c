/*
 * Compressing and decompressing as the records of a compressed jlog are: with LZ4 blocks, or (provider NULL) not at all.
 */
#ifndef _JLOG_COMPRESS_H
#define _JLOG_COMPRESS_H

#include <stddef.h>

#include "jlog.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A way of compressing: functions as jlog_compress and jlog_decompress call them. */
struct jlog_compression_provider {
  void (*init)(void);
  /* The most bytes that so many may become. */
  size_t (*compress_bound)(const int source_size);
  /* How many bytes it wrote, or 0. */
  int (*compress)(const char *source, char *dest, int source_size, int max_dest_size);
  /* How many bytes it wrote, or less than 0. */
  int (*decompress)(const char *source, char *dest, int compressed_size, int max_decompressed_size);
};

/* Chooses the provider for all of the process; NULL at first. 0 or -1. */
int jlog_set_compression_provider(const jlog_compression_provider_choice provider);

/* Compresses into *dest, which has room for *dest_bytes; where that is too little, *dest is set to memory from malloc. The
 * caller frees that. *dest_bytes becomes the length. 0 or -1. */
int jlog_compress(const char *source, const size_t source_bytes, char **dest, size_t *dest_bytes);
/* Decompresses into dest, which has room for dest_bytes. 0, or less than 0 where the bytes do not decompress or do not
 * fit. */
int jlog_decompress(const char *source, const size_t source_bytes, char *dest, size_t dest_bytes);

void jlog_null_compression_provider_init(void);
size_t jlog_null_compression_provider_compress_bound(int source_size);
int jlog_null_compression_provider_compress(const char *source, char *dest, int source_size, int max_dest_size);
int jlog_null_compression_provider_decompress(const char *source, char *dest, int compressed_size,
                                              int max_decompressed_size);
void jlog_lz4_compression_provider_init(void);
size_t jlog_lz4_compression_provider_compress_bound(const int source_size);
int jlog_lz4_compression_provider_compress(const char *source, char *dest, int source_size, int max_dest_size);
int jlog_lz4_compression_provider_decompress(const char *source, char *dest, int compressed_size,
                                             int max_decompressed_size);

#ifdef __cplusplus
}
#endif

#endif
