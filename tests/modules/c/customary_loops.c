/* The customary way to write a module that forks two processes; these children loop for ever. For
 * L31. In customary_returns.c the children return. */
#include <unistd.h>

#include <modhost.h>

#define FIRST_RANK 1
#define SECOND_RANK 5

static void child_main_loop(const char *name) {
    modhost_log(MODHOST_INFO, "%s runs process_no=%d", name, process_no());
#ifndef CHILDREN_RETURN
    for (;;)
        pause();
#endif
}

static int mod_init(void) {
    return register_procs(2) < 0 ? modhost_error("cannot register two processes") : 0;
}

static int mod_child(int rank) {
    int pid;

    if (rank == PROC_MAIN) {
        pid = fork_process(FIRST_RANK, "first", 1);
        if (pid < 0)
            return -1;
        else if (pid == 0) {
            child_main_loop("first");
        } else {
            pid = fork_process(SECOND_RANK, "second", 1);
            if (pid < 0)
                return -1;
            else if (pid == 0) {
                child_main_loop("second");
            } else {
                modhost_log(MODHOST_INFO, "both forked");
            }
        }
    } else {
        modhost_log(MODHOST_INFO, "mod_child rank=%d", rank);
    }
    return 0;
}

MODULE_EXPORTS(.name = "customary", .version = "1", .init_f = mod_init, .init_child_f = mod_child);
