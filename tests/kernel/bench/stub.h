/* What stub.so and upcall say to each other besides netlink messages. */
#include <stdint.h>
#include <linux/tls.h>

#define STUB_FAMILY 28
#define STUB_GROUP (STUB_FAMILY + 1)
#define STUB_JOIN 0xfff0 /* a message type: this socket has joined the group */
#define STUB_COOKIE 100 /* an attribute of DONE: the socket's SO_COOKIE */
#define STUB_KEYS 101 /* an attribute of DONE: struct keys */
#define STUB_NAME "BENCH_UPCALL" /* the environment's variable with upcall's name */
#define STUB_COUNT "/tmp/%s.pending" /* a file with the number of requests that wait */

struct key {
	uint32_t length;
	union {
		struct tls12_crypto_info_aes_gcm_128 small;
		struct tls12_crypto_info_aes_gcm_256 large;
	} info;
};

struct keys {
	struct key tx, rx;
};
