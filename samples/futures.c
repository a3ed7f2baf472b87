/* SPDX-License-Identifier: MIT */
/* Futures: calls to several proclets are under way at once, and their answers are collected afterwards. */
#include <nu/nu.h>
#include <stdio.h>

#define ADDERS 4
#define SLICE  250000u

struct adder {
	char nothing;
};

NU_CLASS(adder);
NU_METHOD(adder, sum, val(uint64_t), val(uint64_t, from), val(uint64_t, to));

int adder_init(struct adder *self)
{
	return 0;
}

uint64_t adder_do_sum(struct adder *self, uint64_t from, uint64_t to)
{
	uint64_t sum = 0;

	for (; from < to; from++)
		sum += from;
	return sum;
}

static int main_fn(int argc, char **argv)
{
	struct adder_sum_future futures[ADDERS] = {0};
	struct adder_ref adders[ADDERS] = {0};
	uint64_t part, sum = 0;
	int err, ret = 0;
	unsigned i;

	for (i = 0; i < ADDERS && !ret; i++) {
		ret = adder_create(&(struct nu_options){.node = NU_NODE(i % nu_node_count())}, &adders[i]);
		if (!ret) /* returns when the call has begun */
			ret = adder_sum_async(adders[i], i * SLICE, (i + 1) * SLICE, &futures[i]);
	}
	/* All that were begun are waited for, also if another failed, because answers are written to `futures`. */
	for (i = 0; i < ADDERS; i++) {
		err = adder_sum_wait(&futures[i], &part);
		sum += err ? 0 : part;
		ret = ret ? ret : err;
		adder_ref_put(&adders[i]);
	}
	printf("the numbers below %u add up to %llu\n", ADDERS * SLICE, (unsigned long long)sum);
	return ret;
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, main_fn, NULL);
}
