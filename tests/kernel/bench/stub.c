/*
 * Preloaded into an agent, any agent, where the kernel cannot be asked: its generic netlink
 * sockets lead to upcall instead, and kTLS is believed to be there.
 *
 * The requests' descriptors come by SCM_RIGHTS, and the number that the agent reads in the
 * reply to ACCEPT is put in here.  What is given to TLS_TX and TLS_RX is kept, and sent to
 * upcall with DONE.
 *
 * The kernel answers in microseconds, another process when it gets its turn.  So what can be
 * answered here, is: that no request waits, and that DONE was taken.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/genetlink.h>
#include <linux/handshake.h>
#include <linux/netlink.h>

#include "stub.h"

#define DESCRIPTORS 65536
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

struct refusal {
	struct nlmsghdr header;
	struct nlmsgerr body;
};

static char redirected[DESCRIPTORS], joined[DESCRIPTORS];
static struct refusal answers[DESCRIPTORS]; /* to be received next; a length of 0 means none */
static struct keys keys[DESCRIPTORS];

static int is_ours(int fd)
{
	return fd >= 0 && fd < DESCRIPTORS && redirected[fd];
}

int socket(int domain, int type, int protocol)
{
	REAL(socket);
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	const char *given = getenv(STUB_NAME);
	int fd;

	if (domain != AF_NETLINK || protocol != NETLINK_GENERIC || !given)
		return real(domain, type, protocol);
	fd = real(AF_UNIX, SOCK_SEQPACKET | (type & SOCK_CLOEXEC), 0);
	strncpy(name.sun_path + 1, given, sizeof(name.sun_path) - 2);
	if (fd < 0 || fd >= DESCRIPTORS ||
	    ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect"))(
		    fd, (struct sockaddr *)&name,
		    offsetof(struct sockaddr_un, sun_path) + 1 + strlen(given)))
		return -1;
	if (type & SOCK_NONBLOCK)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	redirected[fd] = 1;
	return fd;
}

int close(int fd)
{
	REAL(close);

	if (fd >= 0 && fd < DESCRIPTORS) {
		redirected[fd] = joined[fd] = 0;
		answers[fd].header.nlmsg_len = 0;
	}
	return real(fd);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	REAL(bind);

	return is_ours(fd) ? 0 : real(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	REAL(connect);

	return is_ours(fd) && address->sa_family == AF_NETLINK ? 0 : real(fd, address, length);
}

/* The netlink port of a socket, which answers bear. */
static uint32_t port_of(int fd)
{
	return getpid() + (fd << 22);
}

static void name_kernel(struct sockaddr_nl *address, socklen_t *length, uint32_t port)
{
	struct sockaddr_nl named = { .nl_family = AF_NETLINK, .nl_pid = port };

	if (!address || !length)
		return;
	memcpy(address, &named, *length < sizeof(named) ? *length : sizeof(named));
	*length = sizeof(named);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
	REAL(getsockname);

	if (!is_ours(fd))
		return real(fd, address, length);
	name_kernel((struct sockaddr_nl *)address, length, port_of(fd));
	return 0;
}

static struct key *key_of(int fd, int option)
{
	return option == TLS_TX ? &keys[fd].tx : &keys[fd].rx;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	REAL(setsockopt);

	if (is_ours(fd) && level == SOL_NETLINK) {
		struct {
			struct nlmsghdr header;
			struct genlmsghdr generic;
		} join = { .header = { .nlmsg_len = sizeof(join), .nlmsg_type = STUB_JOIN } };

		if (option != NETLINK_ADD_MEMBERSHIP)
			return 0;
		joined[fd] = 1;
		return send(fd, &join, sizeof(join), 0) < 0 ? -1 : 0;
	}
	if (level == IPPROTO_TCP && option == TCP_ULP)
		return 0;
	if (level == SOL_TLS && fd >= 0 && fd < DESCRIPTORS) {
		if (option == TLS_TX || option == TLS_RX) {
			struct key *key = key_of(fd, option);

			key->length = length < sizeof(key->info) ? length : sizeof(key->info);
			memcpy(&key->info, value, key->length);
		}
		return 0;
	}
	return real(fd, level, option, value, length);
}

static int tell(void *value, socklen_t *length, uint32_t number)
{
	if (*length > sizeof(number))
		*length = sizeof(number);
	memcpy(value, &number, *length);
	return 0;
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
	REAL(getsockopt);

	if (is_ours(fd) && level == SOL_NETLINK)
		return option == NETLINK_LIST_MEMBERSHIPS ?
			tell(value, length, joined[fd] ? 1U << (STUB_GROUP - 1) : 0) : 0;
	if (is_ours(fd) && level == SOL_SOCKET && option == SO_PROTOCOL)
		return tell(value, length, NETLINK_GENERIC);
	if (level == SOL_TLS && fd >= 0 && fd < DESCRIPTORS) {
		struct key *key = key_of(fd, option);

		if (*length > key->length)
			*length = key->length;
		memcpy(value, &key->info, *length);
		return 0;
	}
	return real(fd, level, option, value, length);
}

/* Put what upcall needs behind DONE. */
static size_t extend(char *message, size_t length)
{
	const struct nlmsghdr *header = (void *)message;
	const struct genlmsghdr *generic = NLMSG_DATA(header);
	size_t at = NLMSG_HDRLEN + GENL_HDRLEN;
	struct nlattr *more = (void *)(message + NLMSG_ALIGN(length));
	socklen_t cookie = sizeof(uint64_t);
	int fd = -1;

	if (header->nlmsg_type != STUB_FAMILY || generic->cmd != HANDSHAKE_CMD_DONE)
		return length;
	while (at + NLA_HDRLEN <= length) {
		const struct nlattr *attribute = (void *)(message + at);

		if (attribute->nla_type == HANDSHAKE_A_DONE_SOCKFD)
			memcpy(&fd, message + at + NLA_HDRLEN, sizeof(fd));
		at += NLA_ALIGN(attribute->nla_len);
	}
	if (fd < 0 || fd >= DESCRIPTORS ||
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, (char *)more + NLA_HDRLEN, &cookie))
		return length;
	more->nla_type = STUB_COOKIE;
	more->nla_len = NLA_HDRLEN + sizeof(uint64_t);
	more = (void *)((char *)more + NLA_ALIGN(more->nla_len));
	more->nla_type = STUB_KEYS;
	more->nla_len = NLA_HDRLEN + sizeof(keys[fd]);
	memcpy((char *)more + NLA_HDRLEN, &keys[fd], sizeof(keys[fd]));
	memset(&keys[fd], 0, sizeof(keys[fd]));
	length = (char *)more + NLA_ALIGN(more->nla_len) - message;
	((struct nlmsghdr *)message)->nlmsg_len = length;
	return length;
}

/* Whether no request waits. */
static int is_idle(void)
{
	static volatile uint32_t *count;
	char path[128];
	int fd;

	if (!count) {
		snprintf(path, sizeof(path), STUB_COUNT, getenv(STUB_NAME));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		count = mmap(NULL, sizeof(*count), PROT_READ, MAP_SHARED, fd, 0);
		if (fd < 0 || count == MAP_FAILED)
			abort();
		close(fd);
	}
	return !*count;
}

static void answer(int fd, const struct nlmsghdr *question, int error)
{
	struct refusal *answer = &answers[fd];

	memset(answer, 0, sizeof(*answer));
	answer->header.nlmsg_len = sizeof(*answer);
	answer->header.nlmsg_type = NLMSG_ERROR;
	answer->header.nlmsg_seq = question->nlmsg_seq;
	answer->header.nlmsg_pid = port_of(fd);
	answer->body.error = error;
	answer->body.msg = *question;
}

/* Send a message of an agent, and see to it that its answer can be received. */
static int deliver(int fd, char *message, size_t length)
{
	static __typeof__(&send) real;
	struct nlmsghdr *header = (void *)message;
	const struct genlmsghdr *generic = NLMSG_DATA(header);
	int command = header->nlmsg_type == STUB_FAMILY ? generic->cmd : 0;
	size_t extended;

	if (!real)
		real = dlsym(RTLD_NEXT, "send");
	if (command == HANDSHAKE_CMD_ACCEPT && is_idle()) {
		answer(fd, header, -EAGAIN);
		return 0;
	}
	extended = extend(message, length);
	if (extended > length && header->nlmsg_flags & NLM_F_ACK) {
		answer(fd, header, 0);
		header->nlmsg_flags &= ~NLM_F_ACK;
	}
	if (real(fd, message, extended, 0) < 0)
		return -1;
	if (extended == length && header->nlmsg_type != STUB_JOIN)
		poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 1000);
	return 0;
}

ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
	REAL(sendmsg);
	char message[4096] __attribute__((aligned(8))) = { 0 };
	size_t length = 0;

	if (!is_ours(fd))
		return real(fd, header, flags);
	for (size_t index = 0; index < header->msg_iovlen; index++) {
		const struct iovec *given = &header->msg_iov[index];

		if (length + given->iov_len > sizeof(message) / 2) {
			errno = EMSGSIZE;
			return -1;
		}
		memcpy(message + length, given->iov_base, given->iov_len);
		length += given->iov_len;
	}
	return deliver(fd, message, length) < 0 ? -1 : (ssize_t)length;
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *address,
	       socklen_t address_length)
{
	REAL(sendto);
	struct iovec part = { (void *)data, length };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	if (!is_ours(fd))
		return real(fd, data, length, flags, address, address_length);
	return sendmsg(fd, &header, flags);
}

ssize_t send(int fd, const void *data, size_t length, int flags)
{
	REAL(send);

	return is_ours(fd) ? sendto(fd, data, length, flags, NULL, 0) : real(fd, data, length, flags);
}

/* A process that has got descriptors of another may have got a socket for READY. */
static void adopt(struct msghdr *header)
{
	const char *given = getenv(STUB_NAME);
	struct sockaddr_un name;

	for (struct cmsghdr *rights = CMSG_FIRSTHDR(header); given && rights;
	     rights = CMSG_NXTHDR(header, rights)) {
		int *fds = (void *)CMSG_DATA(rights);
		size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(*fds);

		if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t index = 0; index < count; index++) {
			socklen_t length = sizeof(name);
			int fd = fds[index];

			memset(&name, 0, sizeof(name));
			if (fd < DESCRIPTORS && !getpeername(fd, (struct sockaddr *)&name, &length) &&
			    name.sun_family == AF_UNIX && !strcmp(name.sun_path + 1, given))
				redirected[fd] = joined[fd] = 1;
		}
	}
}

/* Address all answers, which are no announcements, to the socket that has asked. */
static void name_receiver(int fd, char *data, ssize_t length)
{
	struct nlmsghdr *message = (void *)data;

	while (length >= NLMSG_HDRLEN && message->nlmsg_len >= NLMSG_HDRLEN) {
		if (message->nlmsg_seq)
			message->nlmsg_pid = port_of(fd);
		length -= NLMSG_ALIGN(message->nlmsg_len);
		message = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
	}
}

ssize_t recvmsg(int fd, struct msghdr *header, int flags)
{
	REAL(recvmsg);
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct msghdr own = { .msg_iov = header->msg_iov, .msg_iovlen = header->msg_iovlen };
	const struct cmsghdr *rights;
	ssize_t got;

	if (!is_ours(fd)) {
		got = real(fd, header, flags);
		if (got >= 0)
			adopt(header);
		return got;
	}
	if (header->msg_name)
		name_kernel(header->msg_name, &header->msg_namelen, 0);
	header->msg_flags = 0;
	header->msg_controllen = 0;
	if (answers[fd].header.nlmsg_len) {
		const struct iovec *to = header->msg_iov;

		got = sizeof(struct refusal);
		memcpy(to->iov_base, &answers[fd], to->iov_len < (size_t)got ? to->iov_len : (size_t)got);
		if (!(flags & MSG_PEEK))
			answers[fd].header.nlmsg_len = 0;
		return got;
	}
	/* Whoever only looks would get a descriptor, too. */
	if (!(flags & MSG_PEEK)) {
		own.msg_control = control;
		own.msg_controllen = sizeof(control);
	}
	got = real(fd, &own, flags | MSG_CMSG_CLOEXEC);
	if (got < 0)
		return got;
	header->msg_flags = own.msg_flags & ~MSG_CTRUNC;
	name_receiver(fd, own.msg_iov->iov_base, got);
	rights = flags & MSG_PEEK ? NULL : CMSG_FIRSTHDR(&own);
	if (rights && rights->cmsg_type == SCM_RIGHTS)
		memcpy((char *)own.msg_iov->iov_base + NLMSG_HDRLEN + GENL_HDRLEN + NLA_HDRLEN,
		       CMSG_DATA(rights), sizeof(int));
	return got;
}

ssize_t recvfrom(int fd, void *data, size_t length, int flags, struct sockaddr *address,
		 socklen_t *address_length)
{
	REAL(recvfrom);
	struct iovec part = { data, length };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t got;

	if (!is_ours(fd))
		return real(fd, data, length, flags, address, address_length);
	got = recvmsg(fd, &header, flags);
	if (got >= 0)
		name_kernel((struct sockaddr_nl *)address, address_length, 0);
	return got;
}

ssize_t recv(int fd, void *data, size_t length, int flags)
{
	REAL(recv);

	return is_ours(fd) ? recvfrom(fd, data, length, flags, NULL, NULL) : real(fd, data, length, flags);
}
