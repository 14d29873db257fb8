/* Sends garbage over every socket that connects main with another process of the host, and later,
 * when the host runs, forged requests to bind a socket. For L03: the supervisor takes few kinds of
 * messages from main and trusts none. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <modhost.h>

/* The host's messages: host/src/supervise/protocol.rs. */
struct message {
    unsigned kind, number, nth;
    struct {
        unsigned transport, v6only, address_bytes;
        unsigned char address[112];
    } socket;
    unsigned exit;
    char what[512], detail[2560], hint[512];
};

#define LISTEN 1
#define LISTEN_FOR_MODULE 2
#define LISTEN_FOR_CONTROL 3
#define TCP 2

#define MESSAGE_SIZE sizeof(struct message)

static int is_link(int file) {
    int type = 0;
    struct sockaddr peer;
    socklen_t type_len = sizeof type, peer_len = sizeof peer;
    return getsockopt(file, SOL_SOCKET, SO_TYPE, &type, &type_len) == 0 && type == SOCK_SEQPACKET &&
           getpeername(file, &peer, &peer_len) == 0 && peer.sa_family == AF_UNIX;
}

static void garbage(int file) {
    unsigned char message[MESSAGE_SIZE];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {message, sizeof message};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);

    memset(message, 0xee, sizeof message);
    for (size_t len = 1; len < sizeof message; len = len * 3 + 1)
        (void)!send(file, message, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)!send(file, message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT);
    /* A message that carries a descriptor. */
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &(int){0}, sizeof(int));
    (void)!sendmsg(file, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_to_links(const struct message *message) {
    for (int file = 3; file < 256; file++)
        if (is_link(file))
            (void)!send(file, message, sizeof *message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* In main, whatever it is doing: every way to ask for a socket. */
static void forge(int signal) {
    struct message planned = {.kind = LISTEN}, control = {.kind = LISTEN_FOR_CONTROL}, own = {.kind = LISTEN_FOR_MODULE};
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    (void)signal;
    own.socket.transport = TCP;
    own.socket.address_bytes = sizeof address;
    memcpy(own.socket.address, &address, sizeof address);
    send_to_links(&planned);
    send_to_links(&control);
    send_to_links(&own);
}

static int mod_child(int rank) {
    struct sigaction action = {.sa_handler = forge, .sa_flags = SA_RESTART};
    const struct itimerval later = {.it_value = {.tv_usec = 100000}, .it_interval = {.tv_usec = 100000}};

    if (rank == PROC_MAIN)
        for (int file = 3; file < 256; file++)
            if (is_link(file))
                garbage(file);
    /* The last call before the host is ready. */
    if (rank == PROC_POSTCHILDINIT)
        return sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &later, NULL) < 0 ? -1 : 0;
    return 0;
}

MODULE_EXPORTS(.name = "talks_to_supervisor", .version = "1", .header.flags = MODHOST_WANTS_POSTCHILDINIT,
               .init_child_f = mod_child);
