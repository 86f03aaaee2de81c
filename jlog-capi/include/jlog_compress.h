/*
 * Compression and decompression of the records of a compressed jlog: LZ4 blocks, or (provider NULL) none at all.
 */
#ifndef _JLOG_COMPRESS_H
#define _JLOG_COMPRESS_H

#include <stddef.h>

#include "jlog.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A compression method: the functions that jlog_compress and jlog_decompress call. */
struct jlog_compression_provider {
  void (*init)(void);
  /* Returns the maximum compressed size of that many bytes. */
  size_t (*compress_bound)(const int source_size);
  /* Returns the number of bytes written, or 0 on failure. */
  int (*compress)(const char *source, char *dest, int source_size, int max_dest_size);
  /* Returns the number of bytes written, or a negative number on failure. */
  int (*decompress)(const char *source, char *dest, int compressed_size, int max_decompressed_size);
};

/* Sets the provider of the whole process; initially NULL. Returns 0, or -1 on failure. */
int jlog_set_compression_provider(const jlog_compression_provider_choice provider);

/* Compresses into *dest, which has room for *dest_bytes. If that is too little, *dest is set to memory from malloc, which the
 * caller frees. Sets *dest_bytes to the compressed length. Returns 0, or -1 on failure. */
int jlog_compress(const char *source, const size_t source_bytes, char **dest, size_t *dest_bytes);
/* Decompresses into dest, which has room for dest_bytes. Returns 0, or a negative number if the bytes do not decompress or do
 * not fit. */
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
