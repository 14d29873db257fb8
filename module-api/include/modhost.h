/* modhost.h: write a module for modhost, the pre-fork module host, in C.
 *
 * C99 or later, gcc or clang, 64-bit Linux. This file defines the binary interface for C; it needs
 * no library. A module is a shared object (cc -shared -fPIC). One of its files contains
 * MODULE_EXPORTS(.name = "...", .init_f = ..., ...). C++ can use everything but MODULE_EXPORTS,
 * which must be in a C file of the module.
 *
 *   main    init_f -> PROC_INIT -+-> PROC_MAIN -+-> PROC_POSTCHILDINIT ... destroy_f
 *                                | fork         | fork_process
 *   child                        +-> rank       +-> rank
 *
 * PROC_INIT, PROC_MAIN, PROC_POSTCHILDINIT and rank are calls of init_child_f with that argument.
 *
 * "Where" in a comment names the processes and phases that may call. Anywhere else the call fails
 * and the log says why.
 */
#ifndef MODHOST_H
#define MODHOST_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- numbers ---- */

#define MODHOST_MODULE_MAGIC UINT64_C(0x0154534f48444f4d) /* "MODHOST\1" */
#define MODHOST_HOST_MAGIC UINT64_C(0x0149504154534f48)   /* "HOSTAPI\1" */
#define MODHOST_ABI_MAJOR 1
#define MODHOST_ABI_MINOR 0
#define MODHOST_NOTE_TYPE 1

/* .header.flags */
#define MODHOST_RUST 1u
#define MODHOST_PANIC_ABORT 2u
/* Call init_child_f(PROC_POSTCHILDINIT) in main once every child is ready. */
#define MODHOST_WANTS_POSTCHILDINIT 4u
/* Call init_child_f with PROC_INIT, PROC_MAIN and PROC_POSTCHILDINIT only, with no other rank. */
#define MODHOST_NO_CHILD_INIT 8u

/* Ranks. 1, 2, 3, ... are ordinary workers. */
#define PROC_MAIN 0               /* main, after workers and timers are forked; for fork_process */
#define PROC_TIMER (-1)           /* a timer process */
#define PROC_RPC (-2)             /* the control process */
#define PROC_TCP_MAIN (-4)        /* the TCP main process */
#define PROC_UNIXSOCK (-5)        /* a process that serves a Unix socket for control */
#define PROC_POSTCHILDINIT (-126) /* main, when every child has finished its own init */
#define PROC_INIT (-127)          /* main, before any fork; the number of processes is known */
#define PROC_NOCHLDINIT (-128)    /* for fork_process: no init_child_f in the child */

/* Return codes. A negative number is a failure. */
#define MODHOST_OK 0
#define MODHOST_E_FAILED (-1)
#define MODHOST_E_PHASE (-2)           /* not allowed in this phase or process */
#define MODHOST_E_INVALID (-3)         /* an argument is out of its range */
#define MODHOST_E_NO_MEMORY (-4)       /* shared memory is exhausted */
#define MODHOST_E_LIMIT (-5)           /* more than registered, or more than there is room for */
#define MODHOST_E_SYSTEM (-6)          /* a system call failed; the log has the detail */
#define MODHOST_E_BUSY (-7)            /* another process holds it, or the peer takes no more now */
#define MODHOST_E_DEADLOCK (-8)        /* the caller already holds this lock */
#define MODHOST_E_NOT_RECOVERABLE (-9) /* its data was not repaired; the lock is unusable */
#define MODHOST_E_NO_PEER (-10)        /* the sender has no address and cannot be answered */
#define MODHOST_E_GONE (-11)           /* the connection no longer exists */
#define MODHOST_E_PANIC (-70)          /* a Rust module panicked */
#define MODHOST_OWNER_DIED 1           /* the lock is held, and its last owner died holding it */

/* Log levels. */
#define MODHOST_ERROR 1u
#define MODHOST_WARN 2u
#define MODHOST_INFO 3u
#define MODHOST_DEBUG 4u
#define MODHOST_TRACE 5u

/* struct modhost_param: kind (with the type of its target) and flags. */
#define MODHOST_PARAM_BOOL 1u     /* uint32_t, 0 or 1 */
#define MODHOST_PARAM_INT 2u      /* int64_t */
#define MODHOST_PARAM_STRING 3u   /* struct modhost_str */
#define MODHOST_PARAM_DURATION 4u /* int64_t, nanoseconds */
#define MODHOST_PARAM_SIZE 5u     /* int64_t, bytes, never negative */
#define MODHOST_PARAM_PATH 6u     /* struct modhost_str, an absolute path */
#define MODHOST_PARAM_ENUM 7u     /* uint32_t, index of the word in .words */
#define MODHOST_PARAM_LIST 8u     /* struct modhost_list of values of the kind .of */
#define MODHOST_PARAM_TABLE 9u    /* struct modhost_table of values of the kind .of */
#define MODHOST_PARAM_REQUIRED 1u
#define MODHOST_PARAM_RANGE 2u

#define MODHOST_HANDLER_UDP 1u
#define MODHOST_HANDLER_STREAM 2u
#define MODHOST_DEPEND_REQUIRED 1u
#define MODHOST_DEPEND_OPTIONAL 2u
#define MODHOST_BIND_REQUIRED 1u
#define MODHOST_BIND_OPTIONAL 2u
#define MODHOST_FORK_MAKE_SOCK 1u
#define MODHOST_SHM_ZEROED 1u /* every byte of the block is zero */
#define MODHOST_TIMER_FAST 0u /* for functions that finish in well under a millisecond */
#define MODHOST_TIMER_SLOW 1u /* for functions that may block */

/* Why a connection is over: `reason` of on_close. */
#define MODHOST_CLOSED_NORMALLY 0u   /* the handler asked for it, or both sides had finished */
#define MODHOST_CLOSED_BY_PEER 1u    /* the peer is gone, or the connection was reset */
#define MODHOST_CLOSED_BY_TIMEOUT 2u /* a time limit of the listener */
#define MODHOST_CLOSED_BY_LIMIT 3u   /* a limit on buffered bytes */
#define MODHOST_CLOSED_BY_ERROR 4u   /* a function of the handler returned a failure */
#define MODHOST_CLOSED_BY_STOP 5u    /* the worker stops */

/* How modhost_stream_close ends the connection. */
#define MODHOST_CLOSE_AFTER_SENDING 0u /* sends what is queued, then closes */
#define MODHOST_CLOSE_NOW 1u           /* drops what is queued and resets the connection */
/* Sends what is queued, then ends this side; the peer may go on sending. */
#define MODHOST_CLOSE_SENDING_SIDE 2u

/* Counters. */
#define MODHOST_STAT_COUNTER 1u
#define MODHOST_STAT_GAUGE 2u
#define MODHOST_STAT_HISTOGRAM 3u
#define MODHOST_STAT_SHARED 1u /* flag of a gauge: keeps the part of a process that ends */
#define MODHOST_UNIT_NONE 0u
#define MODHOST_UNIT_BYTES 1u
#define MODHOST_UNIT_NS 2u
#define MODHOST_STAT_BUCKETS 252u /* number of buckets of a histogram without bounds */
#define MODHOST_STAT_MAX_BOUNDS 64u
#define MODHOST_STAT_ALL (-1)     /* modhost_stat_read: the sum over all processes */
#define MODHOST_STAT_OUTSIDE (-2) /* modhost_stat_read: processes that the host did not fork */

/* modhost_process_row.state */
#define MODHOST_PROCESS_FREE 0u     /* never forked */
#define MODHOST_PROCESS_STARTING 1u /* forked, in its own initialisation */
#define MODHOST_PROCESS_SERVING 2u  /* initialised */
#define MODHOST_PROCESS_WAITING 3u  /* dead, to be restarted later */
#define MODHOST_PROCESS_ENDED 4u    /* ended, not to be restarted */

/* ---- what a module exports ---- */

struct modhost_header {
    uint64_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size; /* of struct module_exports */
    uint32_t flags;
    uint16_t needs_host_minor;
    uint16_t reserved;
    const void *rust; /* NULL */
};

struct modhost_api;

/* Where this process counts: a distance in bytes from the address that stat_register gave. The
 * thread whose thread pointer is `thread` adds at `own` with a plain addition; any other thread
 * adds at `threads` with an atomic one. All zeros in a process that the host did not fork. */
struct modhost_stat_home {
    uintptr_t thread;
    uintptr_t own;
    uintptr_t threads;
};

/* One per module, written by the loader before any function of the module runs. */
struct modhost_slot {
    const struct modhost_api *api;
    void *module;
    const uint32_t *log_level; /* may change at any time */
    const struct modhost_stat_home *stat_home;
};

/* len bytes, followed by a NUL that len does not count. */
struct modhost_str {
    const char *ptr;
    size_t len;
};

/* Values of MODHOST_PARAM_LIST and MODHOST_PARAM_TABLE, valid while the process lives. `items` and
 * `values` are arrays of `len` targets of the kind .of, NULL if len is 0. The i-th string of a
 * list:
 * ((const struct modhost_str *)list.items)[i]. */
struct modhost_list {
    const void *items;
    size_t len;
};

struct modhost_table {
    const void *values;
    size_t len;
    const struct modhost_str *keys; /* each only once, in the order of the file */
};

/* A parameter. The host checks the configured value and writes it to the target before init_f. */
struct modhost_param {
    const char *name;
    uint32_t kind;
    uint32_t flags;
    void *target;
    /* As after --set: "10", "1s", "text". NULL: the target keeps its value. */
    const char *default_text;
    /* Inclusive, with MODHOST_PARAM_RANGE, in the target's unit; of a list or table: for each
     * item. */
    int64_t min, max;
    const char *help;  /* one sentence, or NULL */
    const char *words; /* of an enum, or of a list or table of them: "first|random" */
    uint32_t of;       /* kind of items or values: MODHOST_PARAM_BOOL to MODHOST_PARAM_ENUM */
    uint32_t reserved;
};

struct modhost_datagram {
    const uint8_t *data;
    uint32_t len;      /* 0 to 65507 bytes */
    uint16_t peer_len; /* 0: the sender has no address and cannot be answered */
    uint16_t local_len;
    const void *peer;  /* struct sockaddr_in, sockaddr_in6 or sockaddr_un, aligned to 4 bytes */
    const void *local; /* the address that it was sent to, in the same form */
};

/* The argument of a datagram handler, valid until it returns. Use modhost_datagram_at: elements may
 * grow. */
struct modhost_udp_batch {
    uint32_t size;
    uint32_t count; /* at least 1 */
    const struct modhost_datagram *datagrams;
    uint32_t stride;
    uint32_t listener;
};

/* A connection, valid from on_open to the return of on_close, in one process. */
struct modhost_stream {
    uint32_t size;
    uint32_t listener;
    uint64_t id;      /* names it in every process, and never another one */
    void *user;       /* for the module's use; NULL at first */
    /* struct sockaddr_in, sockaddr_in6 or sockaddr_un (if unnamed, the family alone), aligned to 4
     * bytes. */
    const void *peer;
    uint32_t peer_len;
    uint32_t alpn_len;
    const uint8_t *alpn;        /* with TLS, the agreed application protocol; else NULL */
    const uint8_t *server_name; /* with TLS, the host name that the client asked for; else NULL */
    uint32_t server_name_len;
    uint32_t tls; /* 1 with TLS */
};

/* The functions of a stream handler. A negative return closes that connection and no other. All but
 * on_data may be NULL. */
struct modhost_stream_functions {
    uint32_t size; /* of this struct */
    uint32_t reserved;
    /* A new connection, before any data. */
    int32_t (*on_open)(struct modhost_stream *stream);
    /* len bytes, at least 1, that have arrived and were not used yet. Returns how many were used;
     * the rest is passed again, followed by what arrives later. */
    int64_t (*on_data)(struct modhost_stream *stream, const uint8_t *data, size_t len);
    /* The queue had reached its high-water mark and takes bytes again. */
    int32_t (*on_writable)(struct modhost_stream *stream);
    /* The peer has finished sending; `unused` of its bytes were never used. NULL: the host sends
     * what is queued, then closes the connection. */
    int32_t (*on_end)(struct modhost_stream *stream, size_t unused);
    /* The connection is over, MODHOST_CLOSED_*. The last call about it, once, if on_open
     * succeeded. */
    void (*on_close)(struct modhost_stream *stream, uint32_t reason);
};

/* An entry point for traffic. With MODHOST_HANDLER_UDP: on_datagrams; a negative return ends the
 * process, which is replaced. With MODHOST_HANDLER_STREAM: stream. */
struct modhost_handler {
    const char *name;
    uint32_t kind;
    uint32_t reserved;
    const char *help;
    int32_t (*on_datagrams)(struct modhost_udp_batch *batch);
    const struct modhost_stream_functions *stream;
};

struct modhost_dependency {
    const char *name;
    uint32_t kind;
    uint32_t reserved;
};

/* Borrowed bytes in a call of an interface; no NUL follows. Text is UTF-8. */
struct modhost_bytes {
    const uint8_t *ptr;
    size_t len;
};

/* A table of functions for other modules: a struct of function pointers, to which a later minor
 * appends. See MODHOST_INTERFACES. */
struct modhost_interface {
    /* "http.routes": parts of a-z, 0-9, _ and -, separated by dots, at most 63 bytes in all. */
    const char *name;
    uint16_t major, minor;
    uint32_t size; /* of the table, in bytes */
    const void *table;
    const char *layout; /* one line per function, or NULL */
};

/* An interface that this module imports. The host fills the slot before any init_f. See
 * MODHOST_BINDS. */
struct modhost_bind {
    const char *name;
    uint16_t major, minor; /* exactly that major, at least that minor */
    uint32_t size;         /* of the table as this module knows it, in bytes */
    uint32_t kind;         /* MODHOST_BIND_REQUIRED, or _OPTIONAL: the slot may stay NULL */
    uint32_t reserved;
    const void **slot;
    const char *layout;
};

struct module_exports {
    struct modhost_header header;
    struct modhost_slot *host_slot;
    const char *name;    /* 1 to 31 of a-z, 0-9, _ and - */
    const char *version; /* at most 31 bytes */
    const char *summary; /* one sentence, or NULL */
    const struct modhost_param *params;
    uint32_t param_count, param_stride;
    const struct modhost_handler *handlers;
    uint32_t handler_count, handler_stride;
    const struct modhost_dependency *depends;
    uint32_t depend_count, depend_stride;
    /* Main, once, before any fork. 0 is success. */
    int (*init_f)(void);
    /* Main with PROC_INIT and PROC_MAIN, each forked process once (but see MODHOST_NO_CHILD_INIT).
     * Negative is failure. */
    int (*init_child_f)(int rank);
    void (*destroy_f)(void); /* main, at the end */
    const struct modhost_interface *interfaces;
    uint32_t interface_count, interface_stride;
    const struct modhost_bind *binds;
    uint32_t bind_count, bind_stride;
};

/* ---- arguments of the host's functions ---- */

/* A lock in shared memory. Zero is not a valid lock: use modhost_mutex_init. */
struct modhost_mutex {
    uint64_t opaque[8];
};

struct modhost_dead_owner {
    int32_t pid;        /* 0: it died while taking or releasing the lock */
    int32_t process_no; /* -1: unknown */
};

struct modhost_process_info {
    uint32_t size;
    int32_t process_no; /* -1 in a process that the host did not fork */
    int32_t rank;       /* 0 in main */
    int32_t pid;
    uint32_t restarts;
    uint32_t reserved;
};

struct modhost_fork_spec {
    uint32_t size;
    uint32_t flags;
    int32_t rank;
    uint32_t reserved;
    const char *name; /* at most 31 bytes; copied */
    int32_t (*entry)(void *data);
    void *data;
};

struct modhost_timer_spec {
    uint32_t size;
    uint32_t process; /* MODHOST_TIMER_FAST or MODHOST_TIMER_SLOW */
    const char *name; /* at most 31 bytes; copied */
    uint64_t first_ns;
    uint64_t period_ns; /* 0: once */
    int32_t (*function)(void *data, uint64_t expirations);
    void *data;
};

struct modhost_listen_spec {
    uint32_t size;
    uint32_t kind;       /* MODHOST_HANDLER_UDP or MODHOST_HANDLER_STREAM */
    const char *address; /* "ADDRESS:PORT"; port 0 lets the kernel choose */
    const char *handler; /* of this module; NULL: the first of the kind */
    uint32_t workers;    /* 0: the configured default; of a stream listener always 0 */
    uint32_t reserved;
};

struct modhost_stat_spec {
    uint32_t size;
    uint32_t kind;
    uint32_t flags;
    uint32_t unit;
    const char *name; /* 1 to 47 of a-z, 0-9 and _, the first one a letter; copied */
    const char *help; /* one sentence, or NULL; copied */
    /* Of a histogram: the largest value of each bucket but the last, ascending. NULL: the host's
     * own buckets. */
    const uint64_t *bounds;
    uint32_t bound_count;
    uint32_t reserved;
};

struct modhost_stat_info {
    uint32_t size;
    uint32_t kind;
    uint32_t flags;
    uint32_t unit;
    const char *module; /* "host" for the host's own */
    const char *name;
    const char *help;
    const uint64_t *bounds;
    uint32_t bound_count;
    uint32_t words; /* 1; for a histogram the sum of all values and one word per bucket */
};

/* A row of the process table. Each text ends with a NUL, and is empty if there is none. */
struct modhost_process_row {
    uint32_t size;
    uint32_t process_no;
    int32_t rank;
    int32_t pid; /* 0: there is no process now */
    uint32_t state; /* MODHOST_PROCESS_* */
    uint32_t restarts;
    uint64_t uptime_ns; /* since this process was forked; 0 if there is none */
    char name[48];   /* as in the process title, UTF-8 without control characters */
    /* The call into a module that the process is in, or died in: what for, in the words of the log,
     * and the module's name. */
    char phase[40];
    char module[32];
};

struct modhost_host_info {
    uint32_t size;
    int32_t pid; /* the process to send signals to: the supervisor, or main in no-fork mode */
    char version[32];
};

struct modhost_api {
    uint64_t magic;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t size;
    void (*log)(void *module, uint32_t level, const uint8_t *target, size_t target_len, const uint8_t *text, size_t text_len);
    void (*set_error)(void *module, const uint8_t *text, size_t text_len);
    int32_t (*random)(void *module, uint8_t *buffer, size_t len);
    int32_t (*process_info)(void *module, struct modhost_process_info *info);
    int32_t (*max_procs)(void *module);
    int32_t (*register_procs)(void *module, int32_t count);
    int32_t (*fork_process)(void *module, int32_t rank, const char *name, uint32_t flags);
    int32_t (*fork_process_entry)(void *module, const struct modhost_fork_spec *spec);
    /* calls from module to module */
    uint64_t (*interface_enter)(void *module);
    void (*interface_leave)(void *module, uint64_t outer, int32_t code);
    size_t (*error_text)(void *module, uint8_t *buffer, size_t size);
    void *(*shm_alloc)(void *module, size_t size, size_t align);
    void *(*shm_malloc)(void *module, size_t size, size_t align, uint32_t flags, void **into);
    void *(*shm_realloc)(void *module, void *block, size_t size);
    int32_t (*shm_free)(void *module, void *block, void **from);
    int32_t (*mutex_init)(void *module, struct modhost_mutex *mutex);
    int32_t (*mutex_lock)(void *module, struct modhost_mutex *mutex, struct modhost_dead_owner *dead);
    int32_t (*mutex_trylock)(void *module, struct modhost_mutex *mutex, struct modhost_dead_owner *dead);
    int32_t (*mutex_repaired)(void *module, struct modhost_mutex *mutex);
    int32_t (*mutex_unlock)(void *module, struct modhost_mutex *mutex);
    int32_t (*timer_add)(void *module, const struct modhost_timer_spec *spec);
    int32_t (*listen)(void *module, const struct modhost_listen_spec *spec);
    int32_t (*listener_find)(void *module, uint32_t index);
    int32_t (*listener_address)(void *module, uint32_t listener, void *address, uint32_t size);
    int32_t (*udp_reply)(void *module, struct modhost_udp_batch *batch, uint32_t index, const uint8_t *data, size_t len);
    int32_t (*udp_reply_borrowed)(void *module, struct modhost_udp_batch *batch, uint32_t index, const uint8_t *data, size_t len);
    uint8_t *(*udp_reply_buffer)(void *module, struct modhost_udp_batch *batch, size_t size);
    int32_t (*udp_reply_commit)(void *module, struct modhost_udp_batch *batch, uint32_t index, size_t len);
    int32_t (*udp_send)(void *module, uint32_t listener, const void *peer, uint32_t peer_len, const uint8_t *data, size_t len);
    int32_t (*stream_write)(void *module, struct modhost_stream *stream, const uint8_t *data, size_t len);
    uint8_t *(*stream_buffer)(void *module, struct modhost_stream *stream, size_t size);
    int32_t (*stream_commit)(void *module, struct modhost_stream *stream, size_t len);
    int32_t (*stream_write_file)(void *module, struct modhost_stream *stream, int descriptor, uint64_t offset, uint64_t len);
    int64_t (*stream_queued)(void *module, struct modhost_stream *stream);
    int32_t (*stream_read)(void *module, struct modhost_stream *stream, uint32_t on);
    int32_t (*stream_close)(void *module, struct modhost_stream *stream, uint32_t how);
    int32_t (*stream_send)(void *module, uint64_t id, const uint8_t *data, size_t len);
    int32_t (*listener_address_at)(void *module, uint32_t listener, uint32_t nth, void *address, uint32_t size);
    int32_t (*udp_send_from)(void *module, uint32_t listener, const void *local, uint32_t local_len, const void *peer, uint32_t peer_len,
                             const uint8_t *data, size_t len);
    int32_t (*stat_register)(void *module, const struct modhost_stat_spec *spec, void **first);
    int32_t (*stat_info)(void *module, uint32_t index, struct modhost_stat_info *info);
    int32_t (*stat_read)(void *module, uint32_t index, int32_t process_no, uint64_t *words, uint32_t count);
    /* the host itself */
    int32_t (*process_at)(void *module, uint32_t process_no, struct modhost_process_row *row);
    int32_t (*host_info)(void *module, struct modhost_host_info *info);
};

/* ---- the note that lets a file be judged before any of its code runs ---- */

struct modhost_note_descriptor {
    uint16_t abi_major;
    uint16_t abi_minor;
    uint16_t needs_host_minor;
    uint16_t reserved;
    uint32_t flags;
    uint32_t exports_size;
    char sdk[32];
    char compiler[48];
};

struct modhost_note {
    uint32_t name_size;
    uint32_t descriptor_size;
    uint32_t note_type;
    char name[8];
    struct modhost_note_descriptor descriptor;
};

/* ---- sizes and offsets, which must be the host's ---- */

#if defined(__cplusplus)
#define MODHOST_ASSERT(name, condition) static_assert(condition, #name)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MODHOST_ASSERT(name, condition) _Static_assert(condition, #name)
#else
#define MODHOST_ASSERT(name, condition) typedef char modhost_assert_##name[(condition) ? 1 : -1]
#endif

MODHOST_ASSERT(pointer, sizeof(void *) == 8 && sizeof(size_t) == 8 && sizeof(int) == 4);
MODHOST_ASSERT(header, sizeof(struct modhost_header) == 32 && offsetof(struct modhost_header, rust) == 24);
MODHOST_ASSERT(slot, sizeof(struct modhost_slot) == 32 && offsetof(struct modhost_slot, stat_home) == 24);
MODHOST_ASSERT(stat_home, sizeof(struct modhost_stat_home) == 24);
MODHOST_ASSERT(stat_spec, sizeof(struct modhost_stat_spec) == 48 && offsetof(struct modhost_stat_spec, bound_count) == 40);
MODHOST_ASSERT(stat_info, sizeof(struct modhost_stat_info) == 56 && offsetof(struct modhost_stat_info, words) == 52);
MODHOST_ASSERT(str, sizeof(struct modhost_str) == 16);
MODHOST_ASSERT(list, sizeof(struct modhost_list) == 16 && sizeof(struct modhost_table) == 24);
MODHOST_ASSERT(param, sizeof(struct modhost_param) == 72 && offsetof(struct modhost_param, of) == 64);
MODHOST_ASSERT(datagram, sizeof(struct modhost_datagram) == 32 && offsetof(struct modhost_datagram, local) == 24);
MODHOST_ASSERT(udp_batch, sizeof(struct modhost_udp_batch) == 24 && offsetof(struct modhost_udp_batch, listener) == 20);
MODHOST_ASSERT(handler, sizeof(struct modhost_handler) == 40 && offsetof(struct modhost_handler, stream) == 32);
MODHOST_ASSERT(stream, sizeof(struct modhost_stream) == 64 && offsetof(struct modhost_stream, tls) == 60);
MODHOST_ASSERT(stream_functions,
               sizeof(struct modhost_stream_functions) == 48 && offsetof(struct modhost_stream_functions, on_close) == 40);
MODHOST_ASSERT(dependency, sizeof(struct modhost_dependency) == 16);
MODHOST_ASSERT(interface, sizeof(struct modhost_interface) == 32 && sizeof(struct modhost_bind) == 40);
MODHOST_ASSERT(exports, sizeof(struct module_exports) == 168 && offsetof(struct module_exports, bind_stride) == 164);
MODHOST_ASSERT(mutex, sizeof(struct modhost_mutex) == 64);
MODHOST_ASSERT(dead_owner, sizeof(struct modhost_dead_owner) == 8);
MODHOST_ASSERT(process_info, sizeof(struct modhost_process_info) == 24);
MODHOST_ASSERT(fork_spec, sizeof(struct modhost_fork_spec) == 40 && offsetof(struct modhost_fork_spec, data) == 32);
MODHOST_ASSERT(timer_spec, sizeof(struct modhost_timer_spec) == 48 && offsetof(struct modhost_timer_spec, data) == 40);
MODHOST_ASSERT(listen_spec, sizeof(struct modhost_listen_spec) == 32 && offsetof(struct modhost_listen_spec, workers) == 24);
MODHOST_ASSERT(process_row, sizeof(struct modhost_process_row) == 152 && offsetof(struct modhost_process_row, module) == 120);
MODHOST_ASSERT(host_info, sizeof(struct modhost_host_info) == 40);
MODHOST_ASSERT(api, sizeof(struct modhost_api) == 368 && offsetof(struct modhost_api, host_info) == 360);
MODHOST_ASSERT(note_descriptor, sizeof(struct modhost_note_descriptor) == 96);
MODHOST_ASSERT(note, sizeof(struct modhost_note) == 116 && offsetof(struct modhost_note, descriptor) == 20);

/* ---- declaring the module ---- */

/* For MODULE_EXPORTS: an array with its length and the size of its elements. */
#define MODHOST_PARAMS(array) .params = (array), .param_count = MODHOST_COUNT(array), .param_stride = sizeof((array)[0])
#define MODHOST_HANDLERS(array) .handlers = (array), .handler_count = MODHOST_COUNT(array), .handler_stride = sizeof((array)[0])
#define MODHOST_DEPENDS(array) .depends = (array), .depend_count = MODHOST_COUNT(array), .depend_stride = sizeof((array)[0])
/* Elements of the arrays. The exporter has {MODHOST_INTERFACE("sums", 1, 0, table)}, with
 * `static const struct sums table = {...};`. The importer has
 * {MODHOST_BIND("sums", 1, 0, MODHOST_BIND_REQUIRED, pointer)}, with
 * `static const struct sums *pointer;`. */
#define MODHOST_INTERFACE(text, major_, minor_, table_) (text), (major_), (minor_), sizeof(table_), &(table_), NULL
#define MODHOST_BIND(text, major_, minor_, kind_, pointer) \
    (text), (major_), (minor_), sizeof(*(pointer)), (kind_), 0, (const void **)(void *)&(pointer), NULL
#define MODHOST_INTERFACES(array) \
    .interfaces = (array), .interface_count = MODHOST_COUNT(array), .interface_stride = sizeof((array)[0])
#define MODHOST_BINDS(array) .binds = (array), .bind_count = MODHOST_COUNT(array), .bind_stride = sizeof((array)[0])
#define MODHOST_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define MODHOST_TEXT_(x) #x
#define MODHOST_TEXT(x) MODHOST_TEXT_(x)
#if defined(__clang__)
#define MODHOST_COMPILER \
    "clang " MODHOST_TEXT(__clang_major__) "." MODHOST_TEXT(__clang_minor__) "." MODHOST_TEXT(__clang_patchlevel__)
#else
#define MODHOST_COMPILER "gcc " MODHOST_TEXT(__GNUC__) "." MODHOST_TEXT(__GNUC_MINOR__) "." MODHOST_TEXT(__GNUC_PATCHLEVEL__)
#endif

/* clang knows that sections of this name contain notes. gcc does not, so its name also has the
 * type, without which the linker makes no PT_NOTE segment; the rest of gcc's own directive becomes
 * a comment of the assembler. */
#if defined(__clang__)
#define MODHOST_NOTE_SECTION ".note.modhost"
#elif defined(__aarch64__)
#define MODHOST_NOTE_SECTION ".note.modhost,\"a\",%note//"
#else
#define MODHOST_NOTE_SECTION ".note.modhost,\"a\",@note#"
#endif

/* Hidden: every module has its own, which all files of the module share. Written by the loader. */
extern __attribute__((visibility("hidden"))) struct modhost_slot modhost_slot;

/* Once per module, at file scope, followed by a semicolon:
 *     MODULE_EXPORTS(.name = "x", .version = "1.0", .init_f = mod_init, .init_child_f = mod_child);
 * Also: .summary, .destroy_f, .header.flags = MODHOST_..., MODHOST_PARAMS(a), MODHOST_HANDLERS(a),
 * MODHOST_DEPENDS(a), MODHOST_INTERFACES(a), MODHOST_BINDS(a). */
#define MODULE_EXPORTS(...) \
    struct modhost_slot modhost_slot = {NULL, NULL, NULL, NULL}; \
    static const struct modhost_note modhost_note __attribute__((used, aligned(4), section(MODHOST_NOTE_SECTION))) = { \
        8, sizeof(struct modhost_note_descriptor), MODHOST_NOTE_TYPE, "modhost", \
        {MODHOST_ABI_MAJOR, MODHOST_ABI_MINOR, 0, 0, 0, sizeof(struct module_exports), \
         "modhost.h " MODHOST_TEXT(MODHOST_ABI_MAJOR) "." MODHOST_TEXT(MODHOST_ABI_MINOR), MODHOST_COMPILER}}; \
    extern __attribute__((visibility("default"))) const struct module_exports module_exports; \
    const struct module_exports module_exports = { \
        .header.magic = MODHOST_MODULE_MAGIC, \
        .header.abi_major = MODHOST_ABI_MAJOR, \
        .header.abi_minor = MODHOST_ABI_MINOR, \
        .header.size = sizeof(struct module_exports), \
        .host_slot = &modhost_slot, \
        __VA_ARGS__}

/* ---- calls: any process and phase ---- */

#define MODHOST_CALL(function, ...) modhost_slot.api->function(modhost_slot.module, __VA_ARGS__)
#define MODHOST_INLINE static inline __attribute__((unused))
#define MODHOST_PRINTF(text, first) __attribute__((unused, format(printf, text, first)))

/* Whether a record of this level is wanted now. */
MODHOST_INLINE int modhost_log_enabled(uint32_t level) {
#ifdef __ATOMIC_RELAXED
    return level <= __atomic_load_n(modhost_slot.log_level, __ATOMIC_RELAXED);
#else /* without the builtins: an aligned 32-bit load is atomic on all supported machines */
    return level <= *(const volatile uint32_t *)modhost_slot.log_level;
#endif
}

/* The number of bytes in the buffer, from the return of vsnprintf. */
MODHOST_INLINE size_t modhost_formatted(int length, size_t size) {
    return length < 0 ? 0 : (size_t)length < size ? (size_t)length : size - 1;
}

static inline MODHOST_PRINTF(2, 3) void modhost_log_always(uint32_t level, const char *format, ...) {
    char text[1024];
    va_list arguments;
    int length;
    va_start(arguments, format);
    length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    MODHOST_CALL(log, level, NULL, 0, (const uint8_t *)text, modhost_formatted(length, sizeof(text)));
}

/* Writes a record to the host's log: modhost_log(MODHOST_INFO, "answered peer=%s", peer). Cut off
 * after 1023 bytes. The arguments are evaluated only if the level is wanted. */
#define modhost_log(level, ...) \
    do { \
        if (modhost_log_enabled(level)) { \
            modhost_log_always(level, __VA_ARGS__); \
        } \
    } while (0)

/* A function that other modules call begins with `uint64_t outer = modhost_interface_enter();` and
 * ends with `return modhost_interface_leave(outer, code);`. In between, the host blames this
 * module. */
MODHOST_INLINE uint64_t modhost_interface_enter(void) {
    return modhost_slot.api->interface_enter(modhost_slot.module);
}

MODHOST_INLINE int32_t modhost_interface_leave(uint64_t outer, int32_t code) {
    MODHOST_CALL(interface_leave, outer, code);
    return code;
}

/* Copies the text of the last failing call, with a NUL, and forgets it. Returns its length, 0 if
 * there is no text. */
MODHOST_INLINE size_t modhost_error_text(char *buffer, size_t size) {
    size_t length = size == 0 ? 0 : MODHOST_CALL(error_text, (uint8_t *)buffer, size - 1);
    if (size != 0) {
        buffer[length] = 0;
    }
    return length;
}

/* Sets the reason of a failure: return modhost_error("no route to %s", name). Returns -1. */
static inline MODHOST_PRINTF(1, 2) int modhost_error(const char *format, ...) {
    char text[1024];
    va_list arguments;
    int length;
    va_start(arguments, format);
    length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    MODHOST_CALL(set_error, (const uint8_t *)text, modhost_formatted(length, sizeof(text)));
    return -1;
}

/* Fills the buffer from the kernel's generator. A generator seeded before a fork would repeat its
 * numbers in every child. */
MODHOST_INLINE int modhost_random(void *buffer, size_t len) {
    return MODHOST_CALL(random, (uint8_t *)buffer, len);
}

/* Describes the calling process. process_no is -1 if the host did not fork it. */
MODHOST_INLINE struct modhost_process_info modhost_process_info(void) {
    struct modhost_process_info info = {sizeof(struct modhost_process_info), -1, 0, 0, 0, 0};
    (void)MODHOST_CALL(process_info, &info);
    return info;
}

/* Index in the process table, 0 in main. Unique, unlike a rank, and kept by a restart. */
MODHOST_INLINE int process_no(void) {
    return modhost_process_info().process_no;
}

/* Size of the process table. From PROC_INIT on; MODHOST_E_PHASE before. */
MODHOST_INLINE int get_max_procs(void) {
    return modhost_slot.api->max_procs(modhost_slot.module);
}

/* ---- calls: processes ---- */

/* Announces count (at least 1) later forks; calls add up. Where: init_f. */
MODHOST_INLINE int register_procs(int count) {
    return MODHOST_CALL(register_procs, count);
}

/* Forks a registered process. Returns its pid in main, 0 in the child, negative on failure. In the
 * child, init_child_f(rank) of every module has already been called (not for PROC_NOCHLDINIT; see
 * also MODHOST_NO_CHILD_INIT), and the return from init_child_f(PROC_MAIN) ends the child. It is
 * not restarted. Where: PROC_MAIN. */
MODHOST_INLINE int fork_process(int rank, const char *name, int make_sock) {
    return MODHOST_CALL(fork_process, rank, name, make_sock ? MODHOST_FORK_MAKE_SOCK : 0);
}

/* As fork_process, but the child runs entry(data) and ends when that returns, and the host restarts
 * it. data must stay valid in main. Returns in main only. Where: PROC_MAIN. */
MODHOST_INLINE int fork_process_entry(int rank, const char *name, int make_sock, int32_t (*entry)(void *data), void *data) {
    struct modhost_fork_spec spec = {
        sizeof(struct modhost_fork_spec), make_sock ? MODHOST_FORK_MAKE_SOCK : 0, rank, 0, name, entry, data};
    return MODHOST_CALL(fork_process_entry, &spec);
}

/* Calls function(data, expirations) every period_ns nanoseconds (0: once), for the first time after
 * first_ns, in a timer process: MODHOST_TIMER_FAST or MODHOST_TIMER_SLOW. Where: init_f,
 * PROC_INIT. */
MODHOST_INLINE int modhost_timer(
    uint32_t process, const char *name, uint64_t first_ns, uint64_t period_ns, int32_t (*function)(void *data, uint64_t expirations),
    void *data) {
    struct modhost_timer_spec spec = {sizeof(struct modhost_timer_spec), process, name, first_ns, period_ns, function, data};
    return MODHOST_CALL(timer_add, &spec);
}

/* ---- calls: shared memory ---- */

/* Allocates a block of shared memory, at one address in every process, aligned to `align`, a power
 * of two up to 4096. Its content is undefined. NULL without memory; the log says why. Where, for
 * this and the next functions: any process, phase and thread. */
MODHOST_INLINE void *shm_malloc_aligned(size_t size, size_t align) {
    return MODHOST_CALL(shm_malloc, size, align, 0, NULL);
}

/* As above, aligned for every C type. */
MODHOST_INLINE void *shm_malloc(size_t size) {
    return shm_malloc_aligned(size, 16);
}

/* As above, for `count` times `size` bytes, all zero. */
MODHOST_INLINE void *shm_calloc(size_t count, size_t size) {
    return size != 0 && count > SIZE_MAX / size ? NULL : MODHOST_CALL(shm_malloc, count * size, 16, MODHOST_SHM_ZEROED, NULL);
}

/* Resizes `block` and returns its new address; NULL: the block is unchanged. If the process is
 * killed before it has stored the new address, shared memory may keep the old one, which is
 * invalid. Where that matters, allocate, copy, store and free. */
MODHOST_INLINE void *shm_realloc(void *block, size_t size) {
    return MODHOST_CALL(shm_realloc, block, size);
}

/* Frees a block, whichever process allocated it; NULL does nothing. A pointer that is not an
 * allocated block is refused and logged. */
MODHOST_INLINE void shm_free(void *block) {
    (void)MODHOST_CALL(shm_free, block, NULL);
}

/* To be called before the first use, by one process. The lock must be in shared memory. */
MODHOST_INLINE int modhost_mutex_init(struct modhost_mutex *mutex) {
    return MODHOST_CALL(mutex_init, mutex);
}

/* Waits for the lock. Returns 0, or MODHOST_OWNER_DIED: the lock is held, but its last owner died
 * holding it. Then repair the data and call modhost_mutex_repaired; unlocking without that makes
 * the lock unusable for good. Negative: not held. `dead` may be NULL. */
MODHOST_INLINE int modhost_mutex_lock(struct modhost_mutex *mutex, struct modhost_dead_owner *dead) {
    return MODHOST_CALL(mutex_lock, mutex, dead);
}

/* As modhost_mutex_lock, but returns MODHOST_E_BUSY instead of waiting. */
MODHOST_INLINE int modhost_mutex_trylock(struct modhost_mutex *mutex, struct modhost_dead_owner *dead) {
    return MODHOST_CALL(mutex_trylock, mutex, dead);
}

MODHOST_INLINE int modhost_mutex_repaired(struct modhost_mutex *mutex) {
    return MODHOST_CALL(mutex_repaired, mutex);
}

MODHOST_INLINE int modhost_mutex_unlock(struct modhost_mutex *mutex) {
    return MODHOST_CALL(mutex_unlock, mutex);
}

/* ---- calls: counters ---- */

/* Static variables that modhost_counter, modhost_gauge and modhost_histogram fill in. Counting with
 * one that was not registered does nothing. */
struct modhost_counter {
    char *first;
};
struct modhost_gauge {
    char *first;
};
struct modhost_histogram {
    char *first;
    const uint64_t *bounds;
    uint32_t bound_count;
};

MODHOST_INLINE int modhost_stat_register(
    char **first, uint32_t kind, uint32_t flags, uint32_t unit, const char *name, const char *help, const uint64_t *bounds, uint32_t count) {
    struct modhost_stat_spec spec = {sizeof(struct modhost_stat_spec), kind, flags, unit, name, help, bounds, count, 0};
    void *address = NULL;
    int code = MODHOST_CALL(stat_register, &spec, &address);
    *first = (char *)address;
    return code;
}

/* Registers a number that only grows:
 * modhost_counter(&answered, "answered", MODHOST_UNIT_NONE, "datagrams answered").
 * Where: init_f, PROC_INIT. */
MODHOST_INLINE int modhost_counter(struct modhost_counter *counter, const char *name, uint32_t unit, const char *help) {
    return modhost_stat_register(&counter->first, MODHOST_STAT_COUNTER, 0, unit, name, help, NULL, 0);
}

/* Registers a number that goes up and down: the sum of the processes' parts. A part ends with its
 * process; with MODHOST_STAT_SHARED it is kept. Where: init_f, PROC_INIT. */
MODHOST_INLINE int modhost_gauge(struct modhost_gauge *gauge, const char *name, uint32_t unit, uint32_t flags, const char *help) {
    return modhost_stat_register(&gauge->first, MODHOST_STAT_GAUGE, flags, unit, name, help, NULL, 0);
}

/* Registers a histogram, which counts values by their size. `bounds` is static, or NULL for buckets
 * at most a quarter as wide as their values. Where: init_f, PROC_INIT. */
MODHOST_INLINE int modhost_histogram(
    struct modhost_histogram *histogram, const char *name, uint32_t unit, const uint64_t *bounds, uint32_t bound_count, const char *help) {
    histogram->bounds = bounds;
    histogram->bound_count = bound_count;
    return modhost_stat_register(&histogram->first, MODHOST_STAT_HISTOGRAM, 0, unit, name, help, bounds, bound_count);
}

/* A number that only this thread of the process has; never 0. */
MODHOST_INLINE uintptr_t modhost_thread_pointer(void) {
#if defined(__x86_64__)
    uintptr_t pointer;
    __asm__ __volatile__("movq %%fs:0, %0" : "=r"(pointer));
    return pointer;
#elif defined(__aarch64__)
    uintptr_t pointer;
    __asm__ __volatile__("mrs %0, tpidr_el0" : "=r"(pointer));
    return pointer;
#else
    return 1; /* no thread has it: every addition is atomic */
#endif
}

MODHOST_INLINE void modhost_stat_add_atomic(uint64_t *word, uint64_t amount) {
#if defined(__ATOMIC_RELAXED)
    (void)__atomic_fetch_add(word, amount, __ATOMIC_RELAXED);
#elif defined(__x86_64__)
    __asm__ __volatile__("lock; addq %1, %0" : "+m"(*word) : "r"(amount) : "memory");
#else
    (void)__sync_fetch_and_add(word, amount);
#endif
}

MODHOST_INLINE void modhost_stat_add(char *first, uint32_t index, uint64_t amount) {
    const struct modhost_stat_home *home = modhost_slot.stat_home;
    if (first == NULL) {
        return;
    }
    if (modhost_thread_pointer() == home->thread) {
        /* No other thread writes this word; a reader sees the old or the new number. */
        volatile uint64_t *word = (volatile uint64_t *)((uintptr_t)first + home->own) + index;
        *word = *word + amount;
    } else {
        modhost_stat_add_atomic((uint64_t *)((uintptr_t)first + home->threads) + index, amount);
    }
}

/* Where: any process, phase and thread, once the counter is registered. */
MODHOST_INLINE void modhost_counter_add(struct modhost_counter counter, uint64_t amount) {
    modhost_stat_add(counter.first, 0, amount);
}

/* Changes this process's part. Where: any process, phase and thread. */
MODHOST_INLINE void modhost_gauge_add(struct modhost_gauge gauge, int64_t amount) {
    if (gauge.first != NULL) {
        modhost_stat_add_atomic((uint64_t *)((uintptr_t)gauge.first + modhost_slot.stat_home->own), (uint64_t)amount);
    }
}

/* Sets this process's part, to which those of other processes are added.
 * Where: any process, phase and thread. */
MODHOST_INLINE void modhost_gauge_set(struct modhost_gauge gauge, int64_t value) {
    if (gauge.first != NULL) {
        *(volatile int64_t *)((uintptr_t)gauge.first + modhost_slot.stat_home->own) = value;
    }
}

/* Where: any process, phase and thread. */
MODHOST_INLINE void modhost_histogram_record(struct modhost_histogram histogram, uint64_t value) {
    uint32_t bucket = 0;
    if (histogram.bounds != NULL) {
        while (bucket < histogram.bound_count && value > histogram.bounds[bucket]) {
            bucket++;
        }
    } else if (value < 4) {
        bucket = (uint32_t)value;
    } else {
        uint32_t power = 2;
#if defined(__GNUC__)
        power = 63u - (uint32_t)__builtin_clzll(value);
#else
        while (power < 63 && value >> (power + 1) != 0) {
            power++;
        }
#endif
        bucket = (power - 1) * 4 + (uint32_t)((value >> (power - 2)) & 3);
    }
    modhost_stat_add(histogram.first, 1 + bucket, 1);
    modhost_stat_add(histogram.first, 0, value);
}

/* Describes the index-th counter of all modules and the host; MODHOST_E_INVALID past the last.
 * Where: any process and thread, from PROC_INIT on. */
MODHOST_INLINE int modhost_stat_info(uint32_t index, struct modhost_stat_info *info) {
    info->size = sizeof(struct modhost_stat_info);
    return MODHOST_CALL(stat_info, index, info);
}

/* Writes up to count words of one process, MODHOST_STAT_ALL or MODHOST_STAT_OUTSIDE; returns the
 * number of words of that counter. Where: any process and thread, from PROC_INIT on. */
MODHOST_INLINE int modhost_stat_read(uint32_t index, int process_no, uint64_t *words, uint32_t count) {
    return MODHOST_CALL(stat_read, index, process_no, words, count);
}

/* ---- calls: the host itself ---- */

/* Fills in a row of the process table; MODHOST_E_INVALID past the last. It is read word by word
 * while others write: pid and name may belong to two different processes of the slot. Where: any
 * process and thread, from PROC_INIT on. */
MODHOST_INLINE int modhost_process_at(uint32_t process_no, struct modhost_process_row *row) {
    row->size = sizeof(struct modhost_process_row);
    return MODHOST_CALL(process_at, process_no, row);
}

/* Describes the host. Where: any process and thread, from PROC_INIT on. */
MODHOST_INLINE int modhost_host_info(struct modhost_host_info *info) {
    info->size = sizeof(struct modhost_host_info);
    return MODHOST_CALL(host_info, info);
}

/* ---- calls: traffic ---- */

/* Asks for a UDP listener at "ADDRESS:PORT". Returns its number; it is bound after every init_f. It
 * has one address and no options; more can only be configured. Where: init_f. */
MODHOST_INLINE int modhost_listen_udp(const char *address, const char *handler, uint32_t workers) {
    struct modhost_listen_spec spec = {sizeof(struct modhost_listen_spec), MODHOST_HANDLER_UDP, address, handler, workers, 0};
    return MODHOST_CALL(listen, &spec);
}

/* As modhost_listen_udp, for a TCP listener, whose connections the TCP workers serve. */
MODHOST_INLINE int modhost_listen_tcp(const char *address, const char *handler) {
    struct modhost_listen_spec spec = {sizeof(struct modhost_listen_spec), MODHOST_HANDLER_STREAM, address, handler, 0, 0};
    return MODHOST_CALL(listen, &spec);
}

/* Number of the index-th listener that this module's handlers serve, or MODHOST_E_INVALID.
 * Where: from PROC_INIT on. */
MODHOST_INLINE int modhost_listener_find(uint32_t index) {
    return MODHOST_CALL(listener_find, index);
}

/* Writes the bound socket address; returns its length in bytes. Where: from PROC_INIT on. */
MODHOST_INLINE int modhost_listener_address(uint32_t listener, void *address, uint32_t size) {
    return MODHOST_CALL(listener_address, listener, address, size);
}

/* The index-th datagram of a batch, index < batch->count. */
MODHOST_INLINE const struct modhost_datagram *modhost_datagram_at(const struct modhost_udp_batch *batch, uint32_t index) {
    return (const struct modhost_datagram *)(const void *)((const char *)batch->datagrams + (size_t)index * batch->stride);
}

/* Queues a copy of data as an answer to the index-th datagram. It is sent when the handler returns.
 * Where: in the handler. */
MODHOST_INLINE int udp_reply(struct modhost_udp_batch *batch, uint32_t index, const void *data, size_t len) {
    return MODHOST_CALL(udp_reply, batch, index, (const uint8_t *)data, len);
}

/* As udp_reply, without the copy: data must stay unchanged until the batch is sent, after the
 * handler has returned. The batch's own datagrams and constants do. */
MODHOST_INLINE int udp_reply_borrowed(struct modhost_udp_batch *batch, uint32_t index, const void *data, size_t len) {
    return MODHOST_CALL(udp_reply_borrowed, batch, index, (const uint8_t *)data, len);
}

/* A buffer of size bytes for an answer, to be filled before udp_reply_commit, without another call
 * about the batch in between. NULL above 65507 bytes. */
MODHOST_INLINE void *udp_reply_buffer(struct modhost_udp_batch *batch, size_t size) {
    return MODHOST_CALL(udp_reply_buffer, batch, size);
}

/* Queues the first len bytes of the last udp_reply_buffer as an answer to the index-th datagram. */
MODHOST_INLINE int udp_reply_commit(struct modhost_udp_batch *batch, uint32_t index, size_t len) {
    return MODHOST_CALL(udp_reply_commit, batch, index, len);
}

/* Sends one datagram from a listener's socket at once. Where: any process, from PROC_INIT on. */
MODHOST_INLINE int udp_send(uint32_t listener, const void *peer, uint32_t peer_len, const void *data, size_t len) {
    return MODHOST_CALL(udp_send, listener, peer, peer_len, (const uint8_t *)data, len);
}

/* As modhost_listener_address, for the nth address of a listener; MODHOST_E_INVALID past the
 * last. */
MODHOST_INLINE int modhost_listener_address_at(uint32_t listener, uint32_t nth, void *address, uint32_t size) {
    return MODHOST_CALL(listener_address_at, listener, nth, address, size);
}

/* As udp_send, from the listener's address `local`, for example `local` of a datagram. */
MODHOST_INLINE int udp_send_from(uint32_t listener, const void *local, uint32_t local_len, const void *peer, uint32_t peer_len,
                                 const void *data, size_t len) {
    return MODHOST_CALL(udp_send_from, listener, local, local_len, peer, peer_len, (const uint8_t *)data, len);
}

/* ---- calls: connections ----
 * All but modhost_stream_send: in a function of the handler, about its own connection. */

/* Queues a copy of data. MODHOST_E_BUSY if the queue is at its high-water mark, MODHOST_E_GONE
 * after a close. */
MODHOST_INLINE int modhost_stream_write(struct modhost_stream *stream, const void *data, size_t len) {
    return MODHOST_CALL(stream_write, stream, (const uint8_t *)data, len);
}

/* A buffer of `size` bytes, at most 16 MiB, at the end of the queue, to be filled before
 * modhost_stream_commit, without another call about the connection in between. NULL where
 * modhost_stream_write would fail. */
MODHOST_INLINE void *modhost_stream_buffer(struct modhost_stream *stream, size_t size) {
    return MODHOST_CALL(stream_buffer, stream, size);
}

/* Queues the first len bytes of the last modhost_stream_buffer. */
MODHOST_INLINE int modhost_stream_commit(struct modhost_stream *stream, size_t len) {
    return MODHOST_CALL(stream_commit, stream, len);
}

/* Queues len bytes of a file from `offset` on. The host duplicates the descriptor. Returns what
 * modhost_stream_write does, or MODHOST_E_SYSTEM. */
MODHOST_INLINE int modhost_stream_write_file(struct modhost_stream *stream, int descriptor, uint64_t offset, uint64_t len) {
    return MODHOST_CALL(stream_write_file, stream, descriptor, offset, len);
}

/* Number of bytes that are queued and not sent yet; negative on error. */
MODHOST_INLINE int64_t modhost_stream_queued(struct modhost_stream *stream) {
    return MODHOST_CALL(stream_queued, stream);
}

/* Stops reading from the peer (on = 0), or resumes (on = 1). */
MODHOST_INLINE int modhost_stream_read(struct modhost_stream *stream, int on) {
    return MODHOST_CALL(stream_read, stream, on ? 1u : 0u);
}

/* Ends the connection, MODHOST_CLOSE_*. Nothing can be queued afterwards. */
MODHOST_INLINE int modhost_stream_close(struct modhost_stream *stream, uint32_t how) {
    return MODHOST_CALL(stream_close, stream, how);
}

/* Queues data, at most 65536 bytes, on the connection of that id from a process that does not serve
 * it, and waits, at most 100 ms, until its worker has taken it. MODHOST_E_GONE if the connection no
 * longer exists, MODHOST_E_BUSY if its queue is full, MODHOST_E_LIMIT without a link to the TCP
 * main process, MODHOST_E_SYSTEM if there was no answer. Where: from PROC_MAIN on, in processes
 * forked with make_sock, in TCP workers, in main in no-fork mode. */
MODHOST_INLINE int modhost_stream_send(uint64_t id, const void *data, size_t len) {
    return MODHOST_CALL(stream_send, id, (const uint8_t *)data, len);
}

#ifdef __cplusplus
}
#endif

#endif
