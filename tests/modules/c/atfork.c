/* Registers fork handlers and logs in each process which of them have run. */
#include <modhost.h>
#include <pthread.h>

static int before, in_parent, in_child;

static void count_before(void) {
    before++;
}

static void count_in_parent(void) {
    in_parent++;
}

static void count_in_child(void) {
    in_child++;
}

static int mod_init(void) {
    return pthread_atfork(count_before, count_in_parent, count_in_child);
}

static int mod_child(int rank) {
    modhost_log(MODHOST_INFO, "rank %d before=%d parent=%d child=%d", rank, before, in_parent, in_child);
    return 0;
}

MODULE_EXPORTS(.name = "atfork", .version = "1", .init_f = mod_init, .init_child_f = mod_child);
