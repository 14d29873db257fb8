/* The module to start from in C: greets in the log in each phase, and answers each datagram with a greeting.
 *
 * Runs in every process, as every module does; each function says where.
 */
#include <modhost.h>

/* Filled in by the host before init_f. */
static struct modhost_str greeting;

/* Per process: each child has its own copy from the fork on. */
static int own_rank;
static unsigned long greeted;

/* Counted by each process, added up by "modhost stats". */
static struct modhost_counter greetings;

/* Main, before any fork, still with the rights of the user who started the host. */
static int mod_init(void) {
    modhost_log(MODHOST_INFO, "%s from init_f, in main, before any fork", greeting.ptr);
    return modhost_counter(&greetings, "greetings", MODHOST_UNIT_NONE, "greetings sent");
}

static int mod_child(int rank) {
    switch (rank) {
    case PROC_INIT: /* main, before any fork; the number of processes is known now */
        if (greeting.len == 0) {
            return modhost_error("parameter \"greeting\" is empty");
        }
        modhost_log(MODHOST_INFO, "%s from PROC_INIT: there will be %d processes", greeting.ptr, get_max_procs());
        break;
    case PROC_MAIN: /* main; the workers are running. A module that wants processes of its own forks them here. */
        modhost_log(MODHOST_INFO, "%s from PROC_MAIN, in main, which has forked the workers", greeting.ptr);
        break;
    case PROC_POSTCHILDINIT: /* main; every process has finished its own init */
        modhost_log(MODHOST_INFO, "%s from PROC_POSTCHILDINIT: everybody is ready", greeting.ptr);
        break;
    default: /* every forked process, before it does anything else */
        own_rank = rank;
        modhost_log(MODHOST_DEBUG, "%s from process %d of rank %d", greeting.ptr, process_no(), rank);
    }
    return 0;
}

/* A worker, for each batch of datagrams that arrived. */
static int32_t greet(struct modhost_udp_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        char answer[256];
        int len = snprintf(answer, sizeof(answer), "%s, you are number %lu at worker %d\n", greeting.ptr, ++greeted, own_rank);
        if (len >= (int)sizeof(answer)) {
            len = (int)sizeof(answer) - 1; /* cut off */
        }
        if (len < 0 || udp_reply(batch, i, answer, (size_t)len) < 0) {
            return modhost_error("no answer");
        }
        modhost_counter_add(greetings, 1);
    }
    return 0;
}

/* Main, at the end. */
static void destroy(void) {
    modhost_log(MODHOST_INFO, "%s for the last time, from destroy_f", greeting.ptr);
}

static const struct modhost_param params[] = {
    {.name = "greeting", .kind = MODHOST_PARAM_STRING, .target = &greeting, .default_text = "hello", .help = "Text of the greeting."},
};

static const struct modhost_handler handlers[] = {
    {.name = "hello", .kind = MODHOST_HANDLER_UDP, .help = "Answers each datagram with a greeting.", .on_datagrams = greet},
};

MODULE_EXPORTS(
    .name = "c_hello", .version = "1.0.0", .summary = "greets in the log in each phase, and whoever sends a datagram",
    .header.flags = MODHOST_WANTS_POSTCHILDINIT, MODHOST_PARAMS(params), MODHOST_HANDLERS(handlers), .init_f = mod_init,
    .init_child_f = mod_child, .destroy_f = destroy);
