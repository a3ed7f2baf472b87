/* SPDX-License-Identifier: MIT */
/* Every kind of argument and result, as a class header that a program includes. */
#include "kinds.h"

/* Closures added by a file that the class does not know, and names that the macros' own might clash with. */
NU_CLOSURE(kinds, twice, val(uint64_t), val(int, args), val(int, result), val(int, p), val(int, result_p),
	   str(ret));

uint64_t kinds_do_twice(struct kinds *self, int args, int result, int p, int result_p, struct nu_str ret)
{
	(void)args, (void)result, (void)p, (void)result_p, (void)ret;
	return self->sum * 2;
}

int caller(struct kinds_ref k, struct gauge_ref g);
int caller(struct kinds_ref k, struct gauge_ref g)
{
	NU_SCOPED(gauge, mine);
	NU_SCOPED_FUTURE(kinds, join, joining);
	NU_SCOPED_FUTURE(kinds, owner, owning);
	NU_SCOPED_FUTURE(kinds, nothing, waiting);
	NU_SCOPED_FUTURE(gauge, create, creating);
	struct nu_str s;
	uint32_t items[3] = {1, 2, 3};
	struct words got;
	uint64_t sum;
	int ret;

	if ((ret = kinds_join_async(k, nu_str("a"), nu_str("b"), &joining)) ||
	    (ret = kinds_owner_async(k, g, &owning)) || (ret = kinds_nothing_async(k, &waiting)) ||
	    (ret = gauge_create_async(NULL, 3, &creating)))
		return ret;
	if ((ret = kinds_join_wait(&joining, &s)) || (ret = kinds_owner_wait(&owning, &mine)) ||
	    (ret = kinds_nothing_wait(&waiting)))
		return ret;
	if ((ret = kinds_squares(k, (struct words){items, 3}, 1, &got)))
		return ret;
	return kinds_twice(k, 1, 2, 3, 4, nu_str(NULL), &sum);
}
