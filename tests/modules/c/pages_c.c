/* Answers requests through http.routes, in C: repeats the request, or does not answer. */
#include <modhost/http.h>

static const struct modhost_http_routes *routes;

static int32_t told(struct modhost_http_exchange *exchange, void *data) {
    struct modhost_bytes host = {NULL, 0};
    struct modhost_bytes parts[] = {exchange->method, exchange->path, exchange->query, exchange->body};
    if (modhost_http_header(exchange, "x-none", &host) != MODHOST_E_INVALID)
        return modhost_error("found a header that is not there");
    if (modhost_http_header(exchange, "HOST", &host) < 0 || modhost_http_status(exchange, 202) < 0 ||
        modhost_http_add_header(exchange, "Content-Type", "text/x-told") < 0)
        return -1;
    for (size_t part = 0; part < MODHOST_COUNT(parts); part++)
        if (modhost_http_write(exchange, parts[part].ptr, parts[part].len) < 0 || modhost_http_write_text(exchange, " ") < 0)
            return -1;
    modhost_http_write(exchange, host.ptr, host.len);
    return modhost_http_write_text(exchange, (const char *)data);
}

static int32_t fails(struct modhost_http_exchange *exchange, void *data) {
    (void)data;
    modhost_http_write_text(exchange, "never seen");
    return modhost_error("in C: %u", (unsigned)exchange->path.len);
}

static struct modhost_http_route all[] = {
    {.method = "", .path = "/c", .prefix = 1, .answer = told, .data = " in C"},
    {.method = "GET", .path = "/c/f%61ils", .answer = fails},
};

static int init(void) {
    struct modhost_http_route wrong = {.path = "/a/../b", .answer = fails};
    char why[128];
    for (size_t route = 0; route < MODHOST_COUNT(all); route++)
        if (modhost_http_add(routes, &all[route]) < 0)
            return -1;
    if (modhost_http_add(routes, &wrong) >= 0)
        return modhost_error("%s was taken", wrong.path);
    modhost_error_text(why, sizeof why);
    modhost_log(MODHOST_INFO, "not taken why=%s", why);
    return 0;
}

static const struct modhost_bind binds[] = {{MODHOST_HTTP_ROUTES(MODHOST_BIND_REQUIRED, routes)}};

MODULE_EXPORTS(.name = "pages_c", .version = "1.0", .init_f = init, MODHOST_BINDS(binds));
