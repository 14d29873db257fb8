/* Answers each datagram from a process that the handler forks, which reads the datagram. Proves
 * that such a process can work. */
#include <modhost.h>
#include <sys/wait.h>
#include <unistd.h>

static int32_t serve(struct modhost_udp_batch *batch) {
    for (uint32_t index = 0; index < batch->count; index++) {
        uint8_t answer[64];
        ssize_t len = 0;
        int ends[2];
        pid_t child;
        if (pipe(ends) != 0 || (child = fork()) < 0) {
            return modhost_error("no pipe, or no process");
        }
        if (child == 0) {
            const struct modhost_datagram *datagram = modhost_datagram_at(batch, index);
            _exit(write(ends[1], datagram->data, datagram->len) == (ssize_t)datagram->len ? 0 : 1);
        }
        close(ends[1]);
        len = read(ends[0], answer, sizeof answer);
        close(ends[0]);
        waitpid(child, NULL, 0);
        udp_reply(batch, index, answer, len > 0 ? (size_t)len : 0);
    }
    return 0;
}

static const struct modhost_handler handlers[] = {{.name = "serve", .kind = MODHOST_HANDLER_UDP, .on_datagrams = serve}};

MODULE_EXPORTS(.name = "forks_to_answer", .version = "1", MODHOST_HANDLERS(handlers));
