/* Handlers that count a thousand times: the cost of a count in a C module. */
#include <modhost.h>

#define TIMES 1000

static struct modhost_counter counter;
static struct modhost_histogram histogram;
static uint64_t *shared;

/* The barrier makes the compiler forget memory between repetitions, as it must at the start of a
 * handler. */
#define REPEAT(work) \
    for (uint64_t time = 0; time < TIMES; time++) { \
        __asm__ __volatile__("" : "+r"(time) : : "memory"); \
        work; \
    } \
    (void)batch; \
    return 0

static int init(void) {
    shared = shm_malloc(sizeof *shared);
    if (shared == NULL || modhost_counter(&counter, "counted", MODHOST_UNIT_NONE, "what is measured") < 0) {
        return -1;
    }
    return modhost_histogram(&histogram, "recorded", MODHOST_UNIT_NONE, NULL, 0, "what is measured");
}

static int32_t loops(struct modhost_udp_batch *batch) {
    REPEAT((void)0);
}

static int32_t count(struct modhost_udp_batch *batch) {
    REPEAT(modhost_counter_add(counter, 1));
}

static int32_t record(struct modhost_udp_batch *batch) {
    REPEAT(modhost_histogram_record(histogram, time));
}

static int32_t atomic(struct modhost_udp_batch *batch) {
    REPEAT(__atomic_fetch_add(shared, 1, __ATOMIC_RELAXED));
}

static const struct modhost_handler handlers[] = {
    {.name = "loops", .kind = MODHOST_HANDLER_UDP, .on_datagrams = loops},
    {.name = "count", .kind = MODHOST_HANDLER_UDP, .on_datagrams = count},
    {.name = "record", .kind = MODHOST_HANDLER_UDP, .on_datagrams = record},
    {.name = "atomic", .kind = MODHOST_HANDLER_UDP, .on_datagrams = atomic},
};

MODULE_EXPORTS(.name = "count", .version = "1", .init_f = init, MODHOST_HANDLERS(handlers));
