/* SPDX-License-Identifier: MIT */
/* A class and a call: a proclet on the job's last node greets by name, and counts whom it greeted. */
#include <nu/nu.h>
#include <stdio.h>

/* The root object. It lies in the proclet's own heap and is reached by the class's methods alone. */
struct greeter {
	unsigned greeted;
};

NU_CLASS(greeter);
NU_METHOD(greeter, hello, str, str(name));

int greeter_init(struct greeter *self)
{
	return 0; /* or a negative errno, which greeter_create() then returns */
}

void greeter_do_hello(struct greeter *self, struct nu_str name, struct nu_out *out)
{
	char text[64];

	snprintf(text, sizeof text, "hello %s, you are number %u", name.s, ++self->greeted);
	nu_out_str(out, text);
}

static int main_fn(int argc, char **argv)
{
	struct nu_options options = {.node = NU_NODE(nu_node_count() - 1)};
	struct nu_str answer;
	NU_SCOPED(greeter, g);
	int i, ret = greeter_create(&options, &g);

	for (i = 0; i < 2 && !ret; i++) {
		ret = greeter_hello(g, nu_str(i ? "moon" : "world"), &answer);
		if (ret)
			break;
		printf("%s\n", answer.s);
		free((void *)answer.s); /* a string that was returned is the caller's */
	}
	return ret; /* g is given back here; it was the last reference, so the proclet is freed */
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, main_fn, NULL);
}
