/*
 * Preloaded into tlshd 1.0.0.  As a server it puts the peer's certificate into a
 * kernel key of type "asymmetric" and takes a failure for a peer without a
 * certificate; user-mode Linux 6.12 has no such key type.  nfsd only looks at
 * whether there is a serial, so any other type of key does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

int add_key(const char *type, const char *description, const void *payload,
	    size_t length, int keyring)
{
	int (*original)(const char *, const char *, const void *, size_t, int) =
		dlsym(RTLD_NEXT, "add_key");

	if (!strcmp(type, "asymmetric"))
		type = "user";
	return original(type, description, payload, length, keyring);
}
