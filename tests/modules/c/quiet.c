/* Logs where its init_child_f is called, and sets the flag for no calls in forked processes. Proves
 * that the host obeys the flag. */
#include <modhost.h>

static int mod_child(int rank) {
    modhost_log(MODHOST_INFO, "called with rank %d", rank);
    return 0;
}

MODULE_EXPORTS(.name = "quiet", .version = "1", .header.flags = MODHOST_NO_CHILD_INIT, .init_child_f = mod_child);
