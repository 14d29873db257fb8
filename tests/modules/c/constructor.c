/* Has a constructor that records that the file was loaded. For L01: every module is loaded before
 * the first init_f. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <modhost.h>

static __attribute__((constructor)) void loaded(void) {
    const char *record = getenv("RECORD");
    char text[64];
    int length = snprintf(text, sizeof text, "loaded module=constructor pid=%d\n", (int)getpid());
    int file = record ? open(record, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (file < 0 || write(file, text, (size_t)length) != length)
        abort();
    close(file);
}

MODULE_EXPORTS(.name = "constructor", .version = "1", .init_f = NULL);
