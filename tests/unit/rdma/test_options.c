/* SPDX-License-Identifier: MIT */
/* The options of RDMA as text. */
#include <criterion/criterion.h>

#include "rdma/rdma.h"

#include <string.h>

static char why[256];

Test(options, nothing_is_the_defaults)
{
	const char *const texts[] = {NULL, ""};

	for (int i = 0; i < 2; i++) {
		struct nu_rdma_options o = {.port = 7, .gid_index = 9};

		cr_assert_eq(nu_rdma_options_parse(texts[i], &o, why, sizeof(why)), 0);
		cr_assert_eq(o.gid_index, -1);
		o.gid_index = 0;
		cr_assert_eq(memcmp(&o, &(struct nu_rdma_options){0}, sizeof(o)), 0);
	}
}

Test(options, each_is_read)
{
	struct nu_rdma_options o;

	cr_assert_eq(
		nu_rdma_options_parse("device=mlx5_0:2,gid=3,qps=4,depth=16,read=256K,timeout=12,retry=5,"
				      "rnr=6,mtu=2048,spin=10,windows=off",
				      &o, why, sizeof(why)),
		0, "%s", why);
	cr_assert_str_eq(o.device, "mlx5_0");
	cr_assert_eq(o.port, 2);
	cr_assert_eq(o.gid_index, 3);
	cr_assert_eq(o.queue_pairs, 4);
	cr_assert_eq(o.depth, 16);
	cr_assert_eq(o.read_bytes, 256 << 10);
	cr_assert_eq(o.timeout, 12);
	cr_assert_eq(o.retry, 5);
	cr_assert_eq(o.rnr_retry, 6);
	cr_assert_eq(o.mtu, 2048);
	cr_assert_eq(o.spin_us, 10);
	cr_assert_eq(o.windows, NU_WINDOWS_OFF);
	cr_assert_eq(nu_rdma_options_parse("port=1,device=rxe0,gid=0,windows=on,read=2m", &o, why,
					   sizeof(why)),
		     0, "%s", why);
	cr_assert_eq(o.port, 1);
	cr_assert_str_eq(o.device, "rxe0");
	cr_assert_eq(o.gid_index, 0);
	cr_assert_eq(o.windows, NU_WINDOWS_ON);
	cr_assert_eq(o.read_bytes, 2 << 20);
}

Test(options, what_is_wrong_is_named)
{
	static const struct {
		const char *text, *named;
	} bad[] = {
		{"device", "KEY=VALUE"},
		{"device=", "name"},
		{"device=rxe0:0", "from 1 to 255"},
		{"device=rxe0:", "from 1 to 255"},
		{"qps=0", "from 1 to 8"},
		{"qps=9", "from 1 to 8"},
		{"qps=2x", "qps=2x"},
		{"qps=-1", "from 1"},
		{"qps= 1", "from 1"},
		{"depth=256", "from 1 to 255"},
		{"depth=99999999999999999999999", "from 1 to 255"},
		{"depth=4294967297", "from 1 to 255"},
		{"read=5000M", "from 4096"},
		{"read=1KB", "from 4096"},
		{"mtu=1500", "256, 512, 1024, 2048 or 4096"},
		{"windows=maybe", "auto, on or off"},
		{"qps=2,", "KEY=VALUE"},
		{"colour=red", "no such option"},
		{"dev=rxe0", "no such option"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct nu_rdma_options o = {.depth = 77};

		cr_assert_eq(nu_rdma_options_parse(bad[i].text, &o, why, sizeof(why)), -EINVAL, "%s",
			     bad[i].text);
		cr_assert(strstr(why, bad[i].named), "%s: %s", bad[i].text, why);
		cr_assert_eq(o.depth, 77);
	}
}

Test(options, a_name_fits_or_is_refused)
{
	char text[80] = "device=";
	struct nu_rdma_options o;

	memset(text + 7, 'a', 63);
	cr_assert_eq(nu_rdma_options_parse(text, &o, why, sizeof(why)), 0);
	cr_assert_eq(strlen(o.device), 63);
	text[7 + 63] = 'a';
	cr_assert_eq(nu_rdma_options_parse(text, &o, why, sizeof(why)), -EINVAL);
}
