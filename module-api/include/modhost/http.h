/* modhost/http.h: answer requests of a web server from a module in C, through the interface
 * "http.routes" 1.0, which the module http exports.
 *
 *     static const struct modhost_http_routes *routes;
 *     static const struct modhost_bind binds[] = {
 *         {MODHOST_HTTP_ROUTES(MODHOST_BIND_REQUIRED, routes)}};
 *
 *     static int32_t hello(struct modhost_http_exchange *exchange, void *data) {
 *         return modhost_http_write_text(exchange, "hello\n");
 *     }
 *     static struct modhost_http_route route = {
 *         .method = "GET", .path = "/hello", .answer = hello};
 *
 *     static int mod_init(void) { return modhost_http_add(routes, &route); }
 *     MODULE_EXPORTS(.name = "x", .version = "1.0", .init_f = mod_init, MODHOST_BINDS(binds));
 */
#ifndef MODHOST_HTTP_H
#define MODHOST_HTTP_H

#include "../modhost.h"
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the interface ---- */

/* A request, and how to answer it. Valid until the answering function returns. Use the functions
 * below. */
struct modhost_http_exchange {
    uint32_t size;
    uint32_t reserved;
    struct modhost_bytes method; /* "GET" */
    struct modhost_bytes path;   /* decoded, without the query */
    struct modhost_bytes query;  /* the part after the question mark, as it was sent */
    struct modhost_bytes body;   /* the whole body */
    void *server;                /* for the server's use */
    int32_t (*header)(struct modhost_http_exchange *exchange, struct modhost_bytes name, struct modhost_bytes *value);
    int32_t (*set_status)(struct modhost_http_exchange *exchange, uint32_t status);
    int32_t (*add_header)(struct modhost_http_exchange *exchange, struct modhost_bytes name, struct modhost_bytes value);
    int32_t (*write)(struct modhost_http_exchange *exchange, struct modhost_bytes data);
    /* Address of the client: a struct sockaddr_in or sockaddr_in6; empty over a Unix socket. */
    struct modhost_bytes peer;
};

struct modhost_http_callback {
    int32_t (*function)(void *data, struct modhost_http_exchange *exchange);
    void *data;
};

/* The table of the interface. */
struct modhost_http_routes {
    int32_t (*add)(struct modhost_bytes method, struct modhost_bytes path, uint32_t prefix, struct modhost_http_callback answer);
};

MODHOST_ASSERT(http_exchange, sizeof(struct modhost_http_exchange) == 128 && offsetof(struct modhost_http_exchange, peer) == 112);
MODHOST_ASSERT(http_callback, sizeof(struct modhost_http_callback) == 16);
MODHOST_ASSERT(http_routes, sizeof(struct modhost_http_routes) == 8);

/* ---- adding routes ---- */

/* An element of the array for MODHOST_BINDS. `pointer` is a static variable of type
 * const struct modhost_http_routes *. */
#define MODHOST_HTTP_ROUTES(kind, pointer) MODHOST_BIND("http.routes", 1, 0, kind, pointer)

/* A route, for modhost_http_add. It must be static: it is read with each request. */
struct modhost_http_route {
    const char *method; /* in capitals; "GET" also answers HEAD, and "" or NULL every method */
    const char *path;   /* begins with a slash; %XX is decoded to that byte */
    int prefix;         /* 1: also answers every path below */
    /* Answers a request, in the process that got it. After a negative return the answer is a 500,
     * and the log has the reason: see modhost_error. */
    int32_t (*answer)(struct modhost_http_exchange *exchange, void *data);
    void *data; /* passed to `answer` */
};

/* Called by the server. Calls the function of the route; meanwhile the host blames this module. */
MODHOST_INLINE int32_t modhost_http_answer(void *data, struct modhost_http_exchange *exchange) {
    const struct modhost_http_route *route = (const struct modhost_http_route *)data;
    uint64_t outer = modhost_interface_enter();
    return modhost_interface_leave(outer, route->answer(exchange, route->data));
}

MODHOST_INLINE struct modhost_bytes modhost_bytes_of(const void *data, size_t len) {
    struct modhost_bytes bytes;
    bytes.ptr = (const uint8_t *)data;
    bytes.len = len;
    return bytes;
}

MODHOST_INLINE struct modhost_bytes modhost_bytes_text(const char *text) {
    return modhost_bytes_of(text, text == NULL ? 0 : strlen(text));
}

/* Adds a route. Negative, with a reason for modhost_error_text, if the route exists already or no
 * request can have that path. If init_f then returns a negative number, that reason is reported.
 * Where: init_f, PROC_INIT. */
MODHOST_INLINE int modhost_http_add(const struct modhost_http_routes *routes, struct modhost_http_route *route) {
    struct modhost_http_callback answer;
    if (route->answer == NULL) {
        return modhost_error("the route %s has no function", route->path == NULL ? "" : route->path);
    }
    answer.function = modhost_http_answer;
    answer.data = route;
    return routes->add(modhost_bytes_text(route->method), modhost_bytes_text(route->path), route->prefix ? 1u : 0u, answer);
}

/* ---- in the answering function ---- */

/* Gets a header of the request; the name is compared case-insensitively. 0, or MODHOST_E_INVALID if
 * there is none. */
MODHOST_INLINE int modhost_http_header(struct modhost_http_exchange *exchange, const char *name, struct modhost_bytes *value) {
    return exchange->header(exchange, modhost_bytes_text(name), value);
}

/* Sets the answer's status code, 200 to 599. Without this call it is 200. Returns 0 or a negative
 * code. */
MODHOST_INLINE int modhost_http_status(struct modhost_http_exchange *exchange, uint32_t status) {
    return exchange->set_status(exchange, status);
}

/* Adds a header to the answer. The server adds those for length and date. Returns 0 or a negative
 * code. */
MODHOST_INLINE int modhost_http_add_header(struct modhost_http_exchange *exchange, const char *name, const char *value) {
    return exchange->add_header(exchange, modhost_bytes_text(name), modhost_bytes_text(value));
}

/* Appends to the answer's body. Returns 0 or a negative code. */
MODHOST_INLINE int modhost_http_write(struct modhost_http_exchange *exchange, const void *data, size_t len) {
    return exchange->write(exchange, modhost_bytes_of(data, len));
}

MODHOST_INLINE int modhost_http_write_text(struct modhost_http_exchange *exchange, const char *text) {
    return exchange->write(exchange, modhost_bytes_text(text));
}

#ifdef __cplusplus
}
#endif

#endif
