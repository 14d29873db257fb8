/* Says where it is called, and that it wants no call in forked processes. Serves the rule that the host heeds that. */
#include <modhost.h>

static int mod_child(int rank) {
    modhost_log(MODHOST_INFO, "called with rank %d", rank);
    return 0;
}

MODULE_EXPORTS(.name = "quiet", .version = "1", .header.flags = MODHOST_NO_CHILD_INIT, .init_child_f = mod_child);
