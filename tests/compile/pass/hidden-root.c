/* SPDX-License-Identifier: MIT */
/* A class whose root object callers do not see, and one that is defined by it. */
#include <nu/nu.h>

NU_CLASS_DECLARE(vault, str(key));
NU_METHOD(vault, open, val(bool), str(key));

int caller(struct vault_ref v, bool *open);
int caller(struct vault_ref v, bool *open)
{
	return vault_open(v, nu_str("sesame"), open);
}

struct vault {
	char key[16];
};
NU_CLASS_DEFINE(vault);
