/*
 * Stands in for the kernel where there is none that can be asked: an NFS server that knows
 * the NULL call only, and the generic netlink family "handshake" over a Unix socket
 * (SOCK_SEQPACKET), to which stub.so redirects an agent.
 *
 *     upcall PORT NAME
 *
 * NAME is the Unix socket's, in the abstract namespace.  A line is printed when that can be
 * connected to, and the clock (CLOCK_MONOTONIC) whenever an agent has joined the group.
 *
 * Instead of kTLS this program
 * itself decrypts the client's call and encrypts the reply, with the keys that the agent
 * gave to setsockopt and that stub.so has put into DONE.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/genetlink.h>
#include <linux/handshake.h>
#include <linux/netlink.h>
#include <linux/tls.h>
#include <openssl/evp.h>

#include "stub.h"

#define PENDING_MAX 4096
#define RECORD_HEADER 5
#define TAG 16

enum kind { LISTENER, AGENTS, AGENT, CLIENT };

struct end {
	enum kind kind;
	int fd;
	int joined; /* an agent's */
	struct end *next; /* among the agents that have joined, or the clients that wait */
	uint64_t cookie; /* a client's */
	int ready; /* a client whose handshake is done */
	struct keys keys;
	size_t received;
	unsigned char buffer[1024];
};

struct message {
	struct nlmsghdr header;
	struct genlmsghdr generic;
	unsigned char attributes[1024];
};

static int epoll;
static volatile uint32_t *count; /* of those that wait */
static struct end *listeners, *pending, **pending_end = &pending;
static struct end *accepted[PENDING_MAX];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct end *add(enum kind kind, int fd)
{
	struct end *end = calloc(1, sizeof(*end));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = end };

	end->kind = kind;
	end->fd = fd;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
	return end;
}

static void drop(struct end *end)
{
	for (struct end **place = &listeners; *place; place = &(*place)->next)
		if (*place == end) {
			*place = end->next;
			break;
		}
	/* An agent may have the file open, too: closing our descriptor would not do. */
	epoll_ctl(epoll, EPOLL_CTL_DEL, end->fd, NULL);
	close(end->fd);
	free(end);
}

static void begin(struct message *message, int type, int operation)
{
	memset(message, 0, NLMSG_HDRLEN + GENL_HDRLEN);
	message->header.nlmsg_len = NLMSG_HDRLEN + GENL_HDRLEN;
	message->header.nlmsg_type = type;
	message->generic.cmd = operation;
	message->generic.version = 1;
}

static struct nlattr *put(struct message *message, int type, const void *value, size_t length)
{
	struct nlattr *attribute =
		(void *)((char *)message + NLMSG_ALIGN(message->header.nlmsg_len));

	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + length;
	if (length)
		memcpy((char *)attribute + NLA_HDRLEN, value, length);
	message->header.nlmsg_len += NLA_ALIGN(attribute->nla_len);
	return attribute;
}

static void put_number(struct message *message, int type, uint32_t value)
{
	put(message, type, &value, sizeof(value));
}

static void close_nest(struct message *message, struct nlattr *nest)
{
	nest->nla_len = (char *)message + message->header.nlmsg_len - (char *)nest;
}

static const void *find(const struct message *message, int type)
{
	size_t at = 0, length = message->header.nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN;

	while (at + NLA_HDRLEN <= length) {
		const struct nlattr *attribute = (const void *)(message->attributes + at);

		if (attribute->nla_type == type)
			return (const char *)attribute + NLA_HDRLEN;
		if (attribute->nla_len < NLA_HDRLEN)
			break;
		at += NLA_ALIGN(attribute->nla_len);
	}
	return NULL;
}

static void answer(struct end *agent, const struct message *question, struct message *reply, int fd)
{
	struct iovec part = { reply, reply->header.nlmsg_len };
	char control[CMSG_SPACE(sizeof(int))];
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	reply->header.nlmsg_seq = question->header.nlmsg_seq;
	reply->header.nlmsg_pid = question->header.nlmsg_pid;
	if (fd >= 0) {
		struct cmsghdr *rights = (void *)control;

		header.msg_control = control;
		header.msg_controllen = sizeof(control);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &fd, sizeof(int));
	}
	sendmsg(agent->fd, &header, MSG_NOSIGNAL);
}

static void acknowledge(struct end *agent, const struct message *question, int error)
{
	struct message reply;
	struct nlmsgerr *body = NLMSG_DATA(&reply.header);

	if (!error && !(question->header.nlmsg_flags & NLM_F_ACK))
		return;
	begin(&reply, NLMSG_ERROR, 0);
	reply.header.nlmsg_len = NLMSG_LENGTH(sizeof(*body));
	body->error = error;
	body->msg = question->header;
	answer(agent, question, &reply, -1);
}

static void tell_family(struct end *agent, const struct message *question)
{
	static const char *const names[] = { HANDSHAKE_MCGRP_NONE, HANDSHAKE_MCGRP_TLSHD };
	struct message reply;
	struct nlattr *groups, *group;
	uint16_t family = STUB_FAMILY;

	begin(&reply, GENL_ID_CTRL, CTRL_CMD_NEWFAMILY);
	put(&reply, CTRL_ATTR_FAMILY_NAME, HANDSHAKE_FAMILY_NAME, sizeof(HANDSHAKE_FAMILY_NAME));
	put(&reply, CTRL_ATTR_FAMILY_ID, &family, sizeof(family));
	put_number(&reply, CTRL_ATTR_VERSION, HANDSHAKE_FAMILY_VERSION);
	put_number(&reply, CTRL_ATTR_HDRSIZE, 0);
	put_number(&reply, CTRL_ATTR_MAXATTR, 0);
	groups = put(&reply, CTRL_ATTR_MCAST_GROUPS, NULL, 0);
	for (int index = 0; index < 2; index++) {
		group = put(&reply, index + 1, NULL, 0);
		put_number(&reply, CTRL_ATTR_MCAST_GRP_ID, STUB_GROUP - 1 + index);
		put(&reply, CTRL_ATTR_MCAST_GRP_NAME, names[index], strlen(names[index]) + 1);
		close_nest(&reply, group);
	}
	close_nest(&reply, groups);
	answer(agent, question, &reply, -1);
	acknowledge(agent, question, 0);
}

static void say_ready(struct end *agent)
{
	struct message ready;

	begin(&ready, STUB_FAMILY, HANDSHAKE_CMD_READY);
	put_number(&ready, HANDSHAKE_A_ACCEPT_HANDLER_CLASS, HANDSHAKE_HANDLER_CLASS_TLSHD);
	send(agent->fd, &ready, ready.header.nlmsg_len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void hand_out(struct end *agent, const struct message *question)
{
	struct end *client = pending;
	struct message reply;
	int slot;

	if (!client) {
		acknowledge(agent, question, -EAGAIN);
		return;
	}
	pending = client->next;
	--*count;
	if (!pending)
		pending_end = &pending;
	for (slot = 0; slot < PENDING_MAX && accepted[slot]; slot++)
		;
	if (slot == PENDING_MAX)
		die("too many requests");
	accepted[slot] = client;
	begin(&reply, STUB_FAMILY, HANDSHAKE_CMD_ACCEPT);
	put_number(&reply, HANDSHAKE_A_ACCEPT_SOCKFD, 0); /* stub.so puts the number in */
	put_number(&reply, HANDSHAKE_A_ACCEPT_MESSAGE_TYPE, HANDSHAKE_MSG_TYPE_SERVERHELLO);
	put_number(&reply, HANDSHAKE_A_ACCEPT_AUTH_MODE, HANDSHAKE_AUTH_X509);
	answer(agent, question, &reply, client->fd);
	acknowledge(agent, question, 0);
}

static void take_back(struct end *agent, const struct message *question)
{
	const void *cookie = find(question, STUB_COOKIE), *keys = find(question, STUB_KEYS);
	const uint32_t *status = find(question, HANDSHAKE_A_DONE_STATUS);
	struct epoll_event event = { .events = EPOLLIN };

	for (int slot = 0; cookie && slot < PENDING_MAX; slot++) {
		struct end *client = accepted[slot];

		if (!client || memcmp(&client->cookie, cookie, sizeof(client->cookie)))
			continue;
		accepted[slot] = NULL;
		if (keys)
			memcpy(&client->keys, keys, sizeof(client->keys));
		if (!status || *status || !keys || !client->keys.tx.length || !client->keys.rx.length) {
			shutdown(client->fd, SHUT_RDWR);
			drop(client);
		} else {
			client->ready = 1;
			client->received = 0;
			event.data.ptr = client;
			epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event);
		}
		acknowledge(agent, question, 0);
		return;
	}
	acknowledge(agent, question, -EBADF);
}

static void hear_agent(struct end *agent)
{
	struct message message;
	struct timespec time;
	ssize_t length = recv(agent->fd, &message, sizeof(message), MSG_DONTWAIT);

	if (length < 0 && errno == EAGAIN)
		return;
	if (length < (ssize_t)(NLMSG_HDRLEN + GENL_HDRLEN)) {
		drop(agent);
	} else if (message.header.nlmsg_type == STUB_JOIN) {
		agent->joined = 1;
		agent->next = listeners;
		listeners = agent;
		clock_gettime(CLOCK_MONOTONIC, &time);
		printf("%ld.%06ld\n", (long)time.tv_sec, time.tv_nsec / 1000);
		fflush(stdout);
	} else if (message.header.nlmsg_type == GENL_ID_CTRL) {
		if (message.generic.cmd == CTRL_CMD_GETFAMILY)
			tell_family(agent, &message);
		else
			acknowledge(agent, &message, -EOPNOTSUPP);
	} else if (message.generic.cmd == HANDSHAKE_CMD_ACCEPT) {
		hand_out(agent, &message);
	} else {
		take_back(agent, &message);
	}
}

static int protect(struct key *key, int encrypt, const unsigned char *header, unsigned char *data,
		   size_t length, unsigned char *tag)
{
	int large = key->info.small.info.cipher_type == TLS_CIPHER_AES_GCM_256, done, final = 0;
	const unsigned char *salt = large ? key->info.large.salt : key->info.small.salt;
	const unsigned char *iv = large ? key->info.large.iv : key->info.small.iv;
	unsigned char nonce[12];
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	memcpy(nonce, salt, 4);
	memcpy(nonce + 4, iv, 8); /* the sequence number is 0 */
	EVP_CipherInit_ex(context, large ? EVP_aes_256_gcm() : EVP_aes_128_gcm(), NULL,
			  large ? key->info.large.key : key->info.small.key, nonce, encrypt);
	EVP_CipherUpdate(context, NULL, &done, header, RECORD_HEADER);
	EVP_CipherUpdate(context, data, &done, data, length);
	if (!encrypt)
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, tag);
	final = EVP_CipherFinal_ex(context, data + length, &done);
	if (encrypt)
		EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, tag);
	EVP_CIPHER_CTX_free(context);
	return final == 1;
}

/* The client's call has come; answer it.  Both are record 0 under their keys. */
static int serve_call(struct end *client)
{
	static const uint32_t words[] = { 0x80000018, 2, 1, 0, 0, 0, 0 };
	unsigned char record[RECORD_HEADER + sizeof(words) + 1 + TAG] = { 23, 3, 3, 0,
									  sizeof(words) + 1 + TAG };
	size_t length = client->buffer[3] << 8 | client->buffer[4];
	unsigned char *body = client->buffer + RECORD_HEADER;

	if (client->received < RECORD_HEADER || client->received < RECORD_HEADER + length)
		return 1;
	if (length < TAG || !protect(&client->keys.rx, 0, client->buffer, body, length - TAG,
				     body + length - TAG))
		return 0;
	for (size_t index = 0; index < sizeof(words) / 4; index++) {
		uint32_t word = htonl(words[index]);

		memcpy(record + RECORD_HEADER + 4 * index, &word, 4);
	}
	record[RECORD_HEADER + sizeof(words)] = 23;
	protect(&client->keys.tx, 1, record, record + RECORD_HEADER, sizeof(words) + 1,
		record + sizeof(record) - TAG);
	client->received = 0;
	return send(client->fd, record, sizeof(record), MSG_NOSIGNAL) == sizeof(record);
}

/* The client asks for TLS: say yes, and ask an agent. */
static int ask_agents(struct end *client)
{
	uint32_t reply[] = { 0x80000020, 0, 1, 0, 0, 8, 0, 0, 0 };
	socklen_t length = sizeof(client->cookie);

	if (client->received < 44)
		return 1;
	for (size_t index = 0; index < sizeof(reply) / 4; index++)
		reply[index] = htonl(reply[index]);
	memcpy(&reply[1], client->buffer + 4, 4);
	memcpy(&reply[6], "STARTTLS", 8);
	if (!listeners || getsockopt(client->fd, SOL_SOCKET, SO_COOKIE, &client->cookie, &length))
		return 0;
	epoll_ctl(epoll, EPOLL_CTL_DEL, client->fd, NULL);
	if (send(client->fd, reply, sizeof(reply), MSG_NOSIGNAL) < 0)
		return 0;
	client->next = NULL;
	*pending_end = client;
	pending_end = &client->next;
	++*count;
	for (struct end *agent = listeners; agent; agent = agent->next)
		say_ready(agent);
	return 1;
}

static void hear_client(struct end *client)
{
	ssize_t got = recv(client->fd, client->buffer + client->received,
			   sizeof(client->buffer) - client->received, MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got > 0) {
		client->received += got;
		if (client->ready ? serve_call(client) : ask_agents(client))
			return;
	}
	drop(client);
}

static void welcome(const struct end *end)
{
	int fd, one = 1;

	if (end->kind == AGENTS) {
		while ((fd = accept4(end->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
			add(AGENT, fd);
		return;
	}
	/* Non-blocking, as nfsd's are. */
	while ((fd = accept4(end->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		add(CLIENT, fd);
	}
}

static void share_count(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), STUB_COUNT, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*count)))
		die(path);
	count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (count == MAP_FAILED)
		die(path);
	*count = 0;
}

int main(int argc, char **arguments)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = INADDR_ANY };
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct epoll_event events[64];
	int tcp, local, one = 1;

	if (argc != 3) {
		fprintf(stderr, "usage: upcall PORT NAME\n");
		return 2;
	}
	share_count(arguments[2]);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	address.sin_port = htons(atoi(arguments[1]));
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(tcp, (struct sockaddr *)&address, sizeof(address)) || listen(tcp, 4096))
		die("port");
	local = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	strncpy(name.sun_path + 1, arguments[2], sizeof(name.sun_path) - 2);
	if (bind(local, (struct sockaddr *)&name,
		 offsetof(struct sockaddr_un, sun_path) + 1 + strlen(arguments[2])) ||
	    listen(local, 4096))
		die("name");
	add(LISTENER, tcp);
	add(AGENTS, local);
	puts("listening");
	fflush(stdout);
	for (;;) {
		int found = epoll_wait(epoll, events, 64, -1);

		for (int index = 0; index < found; index++) {
			struct end *end = events[index].data.ptr;

			if (end->kind == AGENT)
				hear_agent(end);
			else if (end->kind == CLIENT)
				hear_client(end);
			else
				welcome(end);
		}
	}
}
