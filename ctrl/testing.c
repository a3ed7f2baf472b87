/* SPDX-License-Identifier: MIT */
/* Raw access for benchmarks and tests: core/nu_testing.h. */
#include "core/nu_testing.h"
#include "ctrl/ctrl.h"

NU_API int nu_testing_read(unsigned node, void *local, const void *remote, size_t len_bytes)
{
	struct nu_piece piece = {local, (uint64_t)remote, len_bytes};

	return nu_reader_read(node, &piece, 1);
}

NU_API const char *nu_testing_reader(unsigned node)
{
	return nu_reader_name(node);
}

NU_API int nu_testing_transport(unsigned node, char *buf, size_t len)
{
	return nu_wire_transport(node, buf, len);
}

NU_API uint64_t nu_testing_mono_ns(void)
{
	return nu_mono_ns();
}
