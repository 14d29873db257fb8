/* Echoes each line of a connection, in C. Proves that C modules can serve connections like Rust
 * modules. */
#include <modhost.h>
#include <stdlib.h>
#include <string.h>

struct lines {
    uint64_t count;
};

static int32_t on_open(struct modhost_stream *stream) {
    struct lines *lines = calloc(1, sizeof(*lines));
    if (lines == NULL)
        return modhost_error("no memory");
    stream->user = lines;
    return modhost_stream_write(stream, "hello\n", 6);
}

static int64_t on_data(struct modhost_stream *stream, const uint8_t *data, size_t len) {
    struct lines *lines = stream->user;
    size_t used = 0;
    for (const uint8_t *end; (end = memchr(data + used, '\n', len - used)) != NULL;) {
        size_t length = (size_t)(end - (data + used)) + 1;
        uint8_t *room;
        if (length == 5 && memcmp(data + used, "fail\n", 5) == 0)
            return modhost_error("as told after %d lines", (int)lines->count);
        room = modhost_stream_buffer(stream, length);
        if (room == NULL)
            return (int64_t)used;
        memcpy(room, data + used, length);
        if (modhost_stream_commit(stream, length) < 0)
            return -1;
        lines->count++;
        used += length;
    }
    return (int64_t)used;
}

static void on_close(struct modhost_stream *stream, uint32_t reason) {
    modhost_log(MODHOST_INFO, "closed reason=%u", reason);
    free(stream->user);
}

static const struct modhost_stream_functions lines = {
    .size = sizeof(struct modhost_stream_functions), .on_open = on_open, .on_data = on_data, .on_close = on_close};
static const struct modhost_handler handlers[] = {{.name = "lines", .kind = MODHOST_HANDLER_STREAM, .stream = &lines}};

static int child(int rank) {
    (void)rank;
    return 0;
}

MODULE_EXPORTS(.name = "c_streams", .version = "1.0", .init_child_f = child, MODHOST_HANDLERS(handlers));
