/*
 * The least that an agent can do with OpenSSL: what is measured beside it costs more.
 *
 * It takes the kernel's requests (READY, ACCEPT, DONE of the generic netlink family
 * "handshake"), runs TLS 1.3 on every socket at once from one thread, and gives the
 * keys to kTLS.  The SSL_CTX is built once.  It judges a peer's chain as OpenSSL does,
 * a server's also by its name, and nothing else; it logs nothing and reloads nothing.
 *
 *     floor TRUSTSTORE [CERTIFICATE KEY]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/genetlink.h>
#include <linux/handshake.h>
#include <linux/netlink.h>
#include <linux/tls.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/ssl.h>

#define SECRET_MAX 48

struct secret {
	unsigned char octets[SECRET_MAX];
	size_t length;
};

struct connection {
	int fd;
	int server;
	SSL *ssl;
	struct secret client_secret, server_secret;
};

struct message {
	struct nlmsghdr header;
	struct genlmsghdr generic;
	char attributes[4096];
};

static int epoll, ready, command;
static int family;
static SSL_CTX *server_context, *client_context;
static EVP_KDF *kdf;

static void die(const char *what)
{
	perror(what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void put(struct message *message, int type, const void *value, size_t length)
{
	struct nlattr *attribute =
		(void *)((char *)message + NLMSG_ALIGN(message->header.nlmsg_len));

	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + length;
	memcpy((char *)attribute + NLA_HDRLEN, value, length);
	message->header.nlmsg_len += NLA_ALIGN(attribute->nla_len);
}

static const void *find(const char *start, size_t length, int type, size_t *found)
{
	while (length >= NLA_HDRLEN) {
		const struct nlattr *attribute = (const void *)start;
		size_t step = NLA_ALIGN(attribute->nla_len);

		if (attribute->nla_len < NLA_HDRLEN || attribute->nla_len > length)
			break;
		if ((attribute->nla_type & NLA_TYPE_MASK) == type) {
			if (found)
				*found = attribute->nla_len - NLA_HDRLEN;
			return start + NLA_HDRLEN;
		}
		start += step;
		length -= step < length ? step : length;
	}
	return NULL;
}

static uint32_t number(const struct message *reply, int type)
{
	size_t length = reply->header.nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN, found;
	const void *value = find(reply->attributes, length, type, &found);
	uint32_t result = 0;

	if (value && found == sizeof(result))
		memcpy(&result, value, sizeof(result));
	return result;
}

static void begin(struct message *message, int type, int operation, int flags)
{
	memset(&message->header, 0, NLMSG_HDRLEN + GENL_HDRLEN);
	message->header.nlmsg_len = NLMSG_HDRLEN + GENL_HDRLEN;
	message->header.nlmsg_type = type;
	message->header.nlmsg_flags = NLM_F_REQUEST | flags;
	message->generic.cmd = operation;
	message->generic.version = 1;
}

/* Ask the kernel; its answer replaces the question.  Returns 0 or a negative errno. */
static int ask(struct message *message)
{
	if (send(command, message, message->header.nlmsg_len, 0) < 0 ||
	    recv(command, message, sizeof(*message), 0) < (ssize_t)NLMSG_HDRLEN)
		return -errno;
	if (message->header.nlmsg_type == NLMSG_ERROR)
		return ((struct nlmsgerr *)NLMSG_DATA(&message->header))->error;
	return 0;
}

static int netlink(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("netlink");
	return fd;
}

static void join(void)
{
	struct message message;
	const char *groups, *group;
	size_t length, inner;
	uint32_t id = 0;
	uint16_t kind = 0;

	begin(&message, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	put(&message, CTRL_ATTR_FAMILY_NAME, HANDSHAKE_FAMILY_NAME, sizeof(HANDSHAKE_FAMILY_NAME));
	if (ask(&message))
		die("no family handshake");
	length = message.header.nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN;
	memcpy(&kind, find(message.attributes, length, CTRL_ATTR_FAMILY_ID, NULL), sizeof(kind));
	family = kind;
	groups = find(message.attributes, length, CTRL_ATTR_MCAST_GROUPS, &length);
	for (int index = 1; groups && (group = find(groups, length, index, &inner)); index++) {
		const char *name = find(group, inner, CTRL_ATTR_MCAST_GRP_NAME, NULL);

		if (name && !strcmp(name, HANDSHAKE_MCGRP_TLSHD))
			memcpy(&id, find(group, inner, CTRL_ATTR_MCAST_GRP_ID, NULL), sizeof(id));
	}
	if (setsockopt(ready, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &id, sizeof(id)))
		die("join");
}

static void key_logged(const SSL *ssl, const char *line)
{
	struct connection *connection = SSL_get_app_data(ssl);
	struct secret *secret;
	const char *hex;

	if (!strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24))
		secret = &connection->client_secret;
	else if (!strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24))
		secret = &connection->server_secret;
	else
		return;
	hex = strrchr(line, ' ') + 1;
	OPENSSL_hexstr2buf_ex(secret->octets, SECRET_MAX, &secret->length, hex, 0);
}

static int expand(const struct secret *secret, char *digest, char *label, void *out, size_t length)
{
	EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	OSSL_PARAM parameters[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)secret->octets,
						  secret->length),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, label, strlen(label)),
		OSSL_PARAM_construct_end(),
	};
	int done = EVP_KDF_derive(context, out, length, parameters);

	EVP_KDF_CTX_free(context);
	return done == 1;
}

static int set_keys(struct connection *connection, int option, const struct secret *secret)
{
	union {
		struct tls12_crypto_info_aes_gcm_128 small;
		struct tls12_crypto_info_aes_gcm_256 large;
	} info = { 0 };
	unsigned char iv[12];
	int large = !strcmp(SSL_get_cipher_name(connection->ssl), "TLS_AES_256_GCM_SHA384");
	char *digest = large ? "SHA384" : "SHA256";

	info.small.info.version = TLS_1_3_VERSION;
	if (!expand(secret, digest, "iv", iv, sizeof(iv)))
		return 0;
	if (large) {
		info.large.info.cipher_type = TLS_CIPHER_AES_GCM_256;
		memcpy(info.large.salt, iv, sizeof(info.large.salt));
		memcpy(info.large.iv, iv + sizeof(info.large.salt), sizeof(info.large.iv));
		if (!expand(secret, digest, "key", info.large.key, sizeof(info.large.key)))
			return 0;
	} else {
		info.small.info.cipher_type = TLS_CIPHER_AES_GCM_128;
		memcpy(info.small.salt, iv, sizeof(info.small.salt));
		memcpy(info.small.iv, iv + sizeof(info.small.salt), sizeof(info.small.iv));
		if (!expand(secret, digest, "key", info.small.key, sizeof(info.small.key)))
			return 0;
	}
	return !setsockopt(connection->fd, SOL_TLS, option, &info,
			   large ? sizeof(info.large) : sizeof(info.small));
}

static int hand_over(struct connection *connection)
{
	const struct secret *own = &connection->client_secret, *other = &connection->server_secret;

	if (connection->server) {
		own = &connection->server_secret;
		other = &connection->client_secret;
	}
	return !setsockopt(connection->fd, IPPROTO_TCP, TCP_ULP, "tls", 3) &&
	       set_keys(connection, TLS_TX, own) && set_keys(connection, TLS_RX, other);
}

static void finish(struct connection *connection, uint32_t status)
{
	struct message message;
	uint32_t authenticated = UINT32_MAX;
	int32_t fd = connection->fd;

	begin(&message, family, HANDSHAKE_CMD_DONE, NLM_F_ACK);
	put(&message, HANDSHAKE_A_DONE_STATUS, &status, sizeof(status));
	put(&message, HANDSHAKE_A_DONE_SOCKFD, &fd, sizeof(fd));
	if (!status && connection->ssl && SSL_get0_peer_certificate(connection->ssl))
		put(&message, HANDSHAKE_A_DONE_REMOTE_AUTH, &authenticated, sizeof(authenticated));
	/* The kernel keeps the file open: closing our descriptor would not do. */
	epoll_ctl(epoll, EPOLL_CTL_DEL, connection->fd, NULL);
	ask(&message);
	close(connection->fd);
	SSL_free(connection->ssl);
	free(connection);
}

static void step(struct connection *connection)
{
	int result = SSL_do_handshake(connection->ssl);

	if (result == 1)
		finish(connection, hand_over(connection) ? 0 : EIO);
	else if (SSL_get_error(connection->ssl, result) != SSL_ERROR_WANT_READ)
		finish(connection, EACCES);
	ERR_clear_error();
}

static void serve(const struct message *reply)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
	const char *name = find(reply->attributes,
				reply->header.nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN,
				HANDSHAKE_A_ACCEPT_PEERNAME, NULL);

	connection->fd = number(reply, HANDSHAKE_A_ACCEPT_SOCKFD);
	connection->server = number(reply, HANDSHAKE_A_ACCEPT_MESSAGE_TYPE) ==
			     HANDSHAKE_MSG_TYPE_SERVERHELLO;
	connection->ssl = SSL_new(connection->server ? server_context : client_context);
	SSL_set_app_data(connection->ssl, connection);
	SSL_set_fd(connection->ssl, connection->fd);
	if (connection->server) {
		SSL_set_accept_state(connection->ssl);
	} else {
		SSL_set_connect_state(connection->ssl);
		if (name) {
			SSL_set_tlsext_host_name(connection->ssl, name);
			SSL_set1_host(connection->ssl, name);
		}
	}
	epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event);
	if (!connection->server)
		step(connection);
}

/* Take what the kernel has pending, before anything else is done: it holds few. */
static void drain(void)
{
	struct message message;
	uint32_t class = HANDSHAKE_HANDLER_CLASS_TLSHD;

	while (recv(ready, &message, sizeof(message), MSG_DONTWAIT) > 0)
		;
	for (;;) {
		begin(&message, family, HANDSHAKE_CMD_ACCEPT, 0);
		put(&message, HANDSHAKE_A_ACCEPT_HANDLER_CLASS, &class, sizeof(class));
		if (ask(&message))
			return;
		serve(&message);
	}
}

static SSL_CTX *make_context(char **arguments)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());

	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_session_id_context(context, (const unsigned char *)"floor", 5);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_keylog_callback(context, key_logged);
	if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256") ||
	    !SSL_CTX_load_verify_file(context, arguments[0]))
		die("context");
	if (arguments[1] && (!SSL_CTX_use_certificate_chain_file(context, arguments[1]) ||
			     !SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM)))
		die("certificate");
	return context;
}

int main(int count, char **arguments)
{
	struct epoll_event event = { .events = EPOLLIN }, events[64];

	if (count != 2 && count != 4) {
		fprintf(stderr, "usage: floor TRUSTSTORE [CERTIFICATE KEY]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	server_context = make_context(arguments + 1);
	client_context = make_context(arguments + 1);
	kdf = EVP_KDF_fetch(NULL, "TLS13-KDF", NULL);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	ready = netlink();
	command = netlink();
	join();
	epoll_ctl(epoll, EPOLL_CTL_ADD, ready, &event);
	drain();
	for (;;) {
		int found = epoll_wait(epoll, events, 64, -1);

		for (int index = 0; index < found; index++)
			if (!events[index].data.ptr)
				drain();
		for (int index = 0; index < found; index++)
			if (events[index].data.ptr) {
				char peek;

				if (recv(ready, &peek, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
					drain();
				step(events[index].data.ptr);
			}
	}
}
