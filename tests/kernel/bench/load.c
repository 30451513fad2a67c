/*
 * Connects to an NFS server as its clients do, again and again: TCP, the AUTH_TLS probe
 * (RFC 9289, section 4.1), TLS 1.3, a NULL call, its reply; then the connection is closed.
 *
 *     load [-c CONCURRENCY] [-n CONNECTIONS] [-d SECONDS] [-t SECONDS] [-u]
 *          [-C CERTIFICATE -K KEY] [-g GROUPS] ADDRESS PORT
 *
 * One thread, all connections at once, so that many wait for the server and none for
 * another.  The server's certificate is checked for what TLS itself demands, the
 * signature; its chain is not looked at: the agents are measured, not this.
 *
 * No connection is begun after so many connections (-n) or seconds (-d).  One that has no
 * reply after so many seconds (-t) is given up.  With -u, all is over at the first success,
 * and there is a pause before each try.  Prints one line of JSON; "at" is the clock
 * (CLOCK_MONOTONIC) when a connection had its reply.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define PROGRAM 100003 /* NFS */
#define AUTH_TLS 7
#define CALL_LENGTH 44

enum stage { CONNECTING, PROBING, SHAKING, CALLING, STAGES };
static const char *const stage_names[STAGES] = { "connect", "probe", "handshake", "call" };

struct connection {
	int fd;
	enum stage stage;
	double started;
	SSL *ssl;
	unsigned char reply[128];
	size_t received;
};

static int epoll;
static SSL_CTX *context;
static struct sockaddr_in server;
static int concurrency = 1, wanted = 1, until_success;
static double patience = 20, duration = 1e9;

static int begun, ended, succeeded, failures[STAGES][2];
static double *latencies, *times, origin;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void watch(struct connection *connection, uint32_t events, int operation)
{
	struct epoll_event event = { .events = events, .data.ptr = connection };

	if (epoll_ctl(epoll, operation, connection->fd, &event))
		die("epoll_ctl");
}

static size_t make_call(unsigned char *record, uint32_t xid, uint32_t flavor)
{
	uint32_t words[] = { 0x80000000 | (CALL_LENGTH - 4), xid, 0, 2, PROGRAM, 4, 0, flavor, 0, 0, 0 };

	for (size_t index = 0; index < sizeof(words) / 4; index++)
		words[index] = htonl(words[index]);
	memcpy(record, words, sizeof(words));
	return sizeof(words);
}

/* Whether a whole reply is there. */
static int complete(const struct connection *connection)
{
	uint32_t mark;

	if (connection->received < 4)
		return 0;
	memcpy(&mark, connection->reply, 4);
	return connection->received >= 4 + (ntohl(mark) & 0x7fffffff);
}

static void start(struct connection *connection)
{
	int one = 1;

	memset(connection, 0, sizeof(*connection));
	connection->started = now();
	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->fd < 0)
		die("socket");
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(connection->fd, (struct sockaddr *)&server, sizeof(server)) && errno != EINPROGRESS)
		die("connect");
	watch(connection, EPOLLOUT, EPOLL_CTL_ADD);
	begun++;
}

/* End a connection, and begin the next in its place. */
static void end(struct connection *connection, int failed, int late)
{
	double time = now();

	if (failed) {
		failures[connection->stage][late]++;
	} else {
		latencies[succeeded] = time - connection->started;
		times[succeeded++] = time;
	}
	ended++;
	SSL_free(connection->ssl);
	close(connection->fd);
	connection->fd = -1;
	connection->ssl = NULL;
	ERR_clear_error();
	if (until_success && !succeeded)
		usleep(20000);
	if (begun < wanted && time < origin + duration && !(until_success && succeeded))
		start(connection);
}

/* Returns 1 if done, 0 if it has to wait, -1 if the connection is over. */
static int receive(struct connection *connection)
{
	for (;;) {
		size_t room = sizeof(connection->reply) - connection->received;
		unsigned char *to = connection->reply + connection->received;
		int got, waits;

		if (connection->ssl) {
			got = SSL_read(connection->ssl, to, room);
			waits = got <= 0 &&
				SSL_get_error(connection->ssl, got) == SSL_ERROR_WANT_READ;
		} else {
			got = recv(connection->fd, to, room, 0);
			waits = got < 0 && errno == EAGAIN;
		}
		if (got <= 0)
			return waits ? 0 : -1;
		connection->received += got;
		if (complete(connection))
			return 1;
	}
}

static void go_on(struct connection *connection)
{
	unsigned char call[CALL_LENGTH];
	int result, error = 0;
	socklen_t length = sizeof(error);

	switch (connection->stage) {
	case CONNECTING:
		getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error) {
			end(connection, 1, 0);
			return;
		}
		connection->stage = PROBING;
		watch(connection, EPOLLIN, EPOLL_CTL_MOD);
		if (send(connection->fd, call, make_call(call, 1, AUTH_TLS), MSG_NOSIGNAL) < 0)
			end(connection, 1, 0);
		return;
	case PROBING:
		result = receive(connection);
		if (!result)
			return;
		if (result < 0 || !memmem(connection->reply, connection->received, "STARTTLS", 8)) {
			end(connection, 1, 0);
			return;
		}
		connection->stage = SHAKING;
		connection->received = 0;
		connection->ssl = SSL_new(context);
		SSL_set_fd(connection->ssl, connection->fd);
		SSL_set_connect_state(connection->ssl);
		/* fall through */
	case SHAKING:
		result = SSL_do_handshake(connection->ssl);
		if (result != 1) {
			if (SSL_get_error(connection->ssl, result) != SSL_ERROR_WANT_READ)
				end(connection, 1, 0);
			return;
		}
		connection->stage = CALLING;
		if (SSL_write(connection->ssl, call, make_call(call, 2, 0)) <= 0)
			end(connection, 1, 0);
		return;
	default:
		result = receive(connection);
		if (result)
			end(connection, result < 0, 0);
	}
}

static void report(double seconds)
{
	struct rusage usage;
	const char *between = "";

	getrusage(RUSAGE_SELF, &usage);
	printf("{\"began\": %.6f, \"seconds\": %.6f, \"clientSeconds\": %.6f, \"failed\": {", origin,
	       seconds,
	       usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	for (int stage = 0; stage < STAGES; stage++)
		for (int late = 0; late < 2; late++)
			if (failures[stage][late]) {
				printf("%s\"%s %s\": %d", between, stage_names[stage],
				       late ? "late" : "ended", failures[stage][late]);
				between = ", ";
			}
	printf("}, \"milliseconds\": [");
	for (int index = 0; index < succeeded; index++)
		printf("%s%.3f", index ? ", " : "", latencies[index] * 1e3);
	printf("], \"at\": [");
	for (int index = 0; index < succeeded; index++)
		printf("%s%.6f", index ? ", " : "", times[index]);
	printf("]}\n");
}

int main(int count, char **arguments)
{
	const char *certificate = NULL, *key = NULL, *groups = "X25519";
	struct connection *connections;
	struct epoll_event events[64];
	int option;

	signal(SIGPIPE, SIG_IGN);
	while ((option = getopt(count, arguments, "c:n:d:t:uC:K:g:")) != -1)
		switch (option) {
		case 'c': concurrency = atoi(optarg); break;
		case 'n': wanted = atoi(optarg); break;
		case 'd': duration = atof(optarg); break;
		case 'u': until_success = 1; break;
		case 't': patience = atof(optarg); break;
		case 'C': certificate = optarg; break;
		case 'K': key = optarg; break;
		case 'g': groups = optarg; break;
		default: return 2;
		}
	if (count - optind != 2 || concurrency < 1 || wanted < 1) {
		fprintf(stderr, "usage: load [options] ADDRESS PORT\n");
		return 2;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons(atoi(arguments[optind + 1]));
	if (inet_pton(AF_INET, arguments[optind], &server.sin_addr) != 1)
		die(arguments[optind]);
	if (concurrency > wanted)
		concurrency = wanted;
	context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384") ||
	    !SSL_CTX_set1_groups_list(context, groups) ||
	    SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\6sunrpc", 7))
		die("context");
	if (certificate && (!SSL_CTX_use_certificate_chain_file(context, certificate) ||
			    !SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM)))
		die("certificate");
	epoll = epoll_create1(EPOLL_CLOEXEC);
	connections = calloc(concurrency, sizeof(*connections));
	latencies = calloc(wanted, sizeof(*latencies));
	times = calloc(wanted, sizeof(*times));
	origin = now();
	for (int index = 0; index < concurrency; index++)
		start(&connections[index]);
	while (ended < begun) {
		int found = epoll_wait(epoll, events, 64, 100);
		double time = now();

		for (int index = 0; index < found; index++)
			go_on(events[index].data.ptr);
		if (found == 64)
			continue;
		for (int index = 0; index < concurrency; index++)
			if (connections[index].fd >= 0 && time - connections[index].started > patience)
				end(&connections[index], 1, 1);
	}
	report(now() - origin);
	return 0;
}
