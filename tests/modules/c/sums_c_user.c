/* Imports test.sums in C. */
#include <modhost.h>

struct sums {
    int32_t (*add)(struct modhost_bytes name, uint64_t value, uint64_t *sum);
    int32_t (*fail)(struct modhost_bytes text);
};

static const struct sums *sums;
static const struct modhost_bytes first = {(const uint8_t *)"first", 5};

static int use(const char *where) {
    uint64_t sum = 0;
    char why[64];
    if (sums == NULL) {
        modhost_log(MODHOST_INFO, "in C: %s without sums", where);
        return 0;
    }
    if (sums->add(first, 7, &sum) < 0)
        return modhost_error("add failed");
    if (sums->fail(first) == 0)
        return modhost_error("fail did not fail");
    modhost_error_text(why, sizeof why);
    modhost_log(MODHOST_INFO, "in C: %s sum=%llu why=%s", where, (unsigned long long)sum, why);
    return 0;
}

static int init(void) {
    return use("init_f");
}

static int child(int rank) {
    return rank == PROC_INIT || rank > 0 ? use(rank > 0 ? "worker" : "PROC_INIT") : 0;
}

static const struct modhost_bind binds[] = {{MODHOST_BIND("test.sums", 1, 0, MODHOST_BIND_OPTIONAL, sums)}};

MODULE_EXPORTS(.name = "sums_c_user", .version = "1.0", .init_f = init, .init_child_f = child, MODHOST_BINDS(binds));
