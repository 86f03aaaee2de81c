/*
 * For programs that include jlog_config.h: the system headers that they expect it to include, and IFS_CH. The HAVE_
 * macros describe the systems on which this library runs; a program's own configuration may have set them before.
 */
#ifndef __JLOG_CONFIG_H
#define __JLOG_CONFIG_H

#ifndef HAVE_FCNTL_H
#define HAVE_FCNTL_H 1
#endif
#ifndef HAVE_SYS_TYPES_H
#define HAVE_SYS_TYPES_H 1
#endif
#ifndef HAVE_LIBGEN_H
#define HAVE_LIBGEN_H 1
#endif
#ifndef HAVE_DIRENT_H
#define HAVE_DIRENT_H 1
#endif
#ifndef HAVE_ERRNO_H
#define HAVE_ERRNO_H 1
#endif
#ifndef HAVE_STRING_H
#define HAVE_STRING_H 1
#endif
#ifndef HAVE_STDLIB_H
#define HAVE_STDLIB_H 1
#endif
#ifndef HAVE_STDINT_H
#define HAVE_STDINT_H 1
#endif
#ifndef HAVE_UNISTD_H
#define HAVE_UNISTD_H 1
#endif
#ifndef HAVE_SYS_PARAM_H
#define HAVE_SYS_PARAM_H 1
#endif
#ifndef HAVE_SYS_MMAN_H
#define HAVE_SYS_MMAN_H 1
#endif
#ifndef HAVE_TIME_H
#define HAVE_TIME_H 1
#endif
#ifndef HAVE_SYS_TIME_H
#define HAVE_SYS_TIME_H 1
#endif
#ifndef HAVE_SYS_STAT_H
#define HAVE_SYS_STAT_H 1
#endif
#ifndef HAVE_SYS_UIO_H
#define HAVE_SYS_UIO_H 1
#endif
#ifndef HAVE_INT64_T
#define HAVE_INT64_T 1
#endif
#ifndef HAVE_INTXX_T
#define HAVE_INTXX_T 1
#endif
#ifndef HAVE_U_INT
#define HAVE_U_INT 1
#endif
#ifndef HAVE_U_INT64_T
#define HAVE_U_INT64_T 1
#endif
#ifndef HAVE_U_INTXX_T
#define HAVE_U_INTXX_T 1
#endif

#include <libgen.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Separates the components of a path. */
#ifndef IFS_CH
#define IFS_CH '/'
#endif

#endif
