/* Exports test.sums from C, for users in Rust and in C. */
#include <string.h>
#include <modhost.h>

struct sums {
    int32_t (*add)(struct modhost_bytes name, uint64_t value, uint64_t *sum);
    int32_t (*fail)(struct modhost_bytes text);
    int32_t (*crash)(uint32_t really, uint32_t *crashed);
};

static uint64_t total;

static int32_t add(struct modhost_bytes name, uint64_t value, uint64_t *sum) {
    uint64_t outer = modhost_interface_enter();
    total += value + (name.len == 5 && memcmp(name.ptr, "first", 5) == 0 ? 1000 : 0);
    *sum = total;
    return modhost_interface_leave(outer, MODHOST_OK);
}

static int32_t fail(struct modhost_bytes text) {
    uint64_t outer = modhost_interface_enter();
    return modhost_interface_leave(outer, modhost_error("in C: %.*s", (int)text.len, (const char *)text.ptr));
}

static int32_t no_crash(uint32_t really, uint32_t *crashed) {
    *crashed = !really;
    return MODHOST_OK;
}

static const struct sums table = {.add = add, .fail = fail, .crash = no_crash};
static const struct modhost_interface interfaces[] = {{MODHOST_INTERFACE("test.sums", 1, 1, table)}};

MODULE_EXPORTS(.name = "sums_c", .version = "1.0", MODHOST_INTERFACES(interfaces));
