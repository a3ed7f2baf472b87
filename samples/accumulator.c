/* SPDX-License-Identifier: MIT */
/*
 * The accumulator of the paper's Figure 4: proclets are created, called, called at the same time, sent code, and
 * passed to each other.
 */
#include <nu/nu.h>

#include <stdio.h>

struct accumulator {
	struct nu_mutex mutex; /* methods run at the same time */
	int val;
};

NU_CLASS(accumulator, val(int, val));
NU_METHOD(accumulator, add, none, val(int, n));
NU_METHOD(accumulator, get, val(int));
NU_CLOSURE(accumulator, add_and_get, val(int), val(int, n));
NU_CLOSURE(accumulator, add_other, val(int), ref(accumulator, other));

int accumulator_init(struct accumulator *self, int val)
{
	self->val = val;
	return 0;
}

void accumulator_do_add(struct accumulator *self, int n)
{
	nu_mutex_lock(&self->mutex);
	self->val += n;
	nu_mutex_unlock(&self->mutex);
}

int accumulator_do_get(struct accumulator *self)
{
	nu_mutex_lock(&self->mutex);
	int val = self->val;
	nu_mutex_unlock(&self->mutex);
	return val;
}

/* Closures run beside the data: these are plain calls, and the whole takes one trip. */
int accumulator_do_add_and_get(struct accumulator *self, int n)
{
	accumulator_do_add(self, n);
	return accumulator_do_get(self);
}

int accumulator_do_add_other(struct accumulator *self, struct accumulator_ref other)
{
	int val, ret = accumulator_get(other, &val);

	if (!ret)
		accumulator_do_add(self, val);
	return ret;
}

static int main_fn(int argc, char **argv)
{
	NU_SCOPED(accumulator, p1);
	NU_SCOPED(accumulator, p2);
	NU_SCOPED_FUTURE(accumulator, get, f1);
	NU_SCOPED_FUTURE(accumulator, get, f2);
	int a, b, ret, inner;

	if ((ret = accumulator_create(NULL, 10, &p1)) || (ret = accumulator_create(NULL, 10, &p2)))
		return ret;

	if ((ret = accumulator_get(p1, &a)))
		return ret;
	printf("%d\n", a);

	if ((ret = accumulator_add_and_get(p1, 5, &a)))
		return ret;
	printf("%d\n", a);

	if ((ret = accumulator_get_async(p1, &f1)) || (ret = accumulator_get_async(p2, &f2)) ||
	    (ret = accumulator_get_wait(&f1, &a)) || (ret = accumulator_get_wait(&f2, &b)))
		return ret;
	printf("%d\n", a + b);

	/* accumulator_add(p1, 10, 20) would not compile: too many arguments. */
	if ((ret = accumulator_add_other(p1, p2, &inner)) || (ret = inner) || (ret = accumulator_get(p1, &a)))
		return ret;
	printf("%d\n", a);
	return 0; /* p1 and p2 are released here; the last reference frees the proclet */
}

int main(int argc, char **argv)
{
	return nu_run(argc, argv, main_fn, NULL);
}
