/* SPDX-License-Identifier: MIT */
/* Every kind of argument, member and result, where the kinds' names are macros. */
typedef int (*ops_fn)(int);

struct leaf {
	int depth;
};
NU_CLASS(leaf);
NU_CLASS_FINI(leaf);
NU_METHOD(leaf, get, none);

NU_STRUCT(pixel, val(int, x), arr(char, row, 4), weak(leaf, of));
NU_STRUCT(picture, obj(pixel, first), val(double, scale));
NU_VEC(numbers, int);
NU_VEC_OBJ(pixels, pixel);

struct tree {
	int depth;
};
NU_CLASS_DECLARE(tree, val(int, depth), str(text), bytes(data), vec(numbers, ns), ref(leaf, l), weak(leaf, w),
		 fn(ops_fn, f), obj(pixel, p));
NU_CLASS_DEFINE(tree);
NU_METHOD(tree, m_none, none, str(text), bytes(data), ref(leaf, l), weak(leaf, w), fn(ops_fn, f),
	  vec(pixels, ps));
NU_METHOD(tree, m_val, val(int), str(text));
NU_METHOD(tree, m_obj, obj(picture), obj(picture, p));
NU_METHOD(tree, m_ref, ref(leaf));
NU_METHOD(tree, m_weak, weak(leaf));
NU_METHOD(tree, m_fn, fn(ops_fn));
NU_METHOD(tree, m_str, str);
NU_METHOD(tree, m_bytes, bytes, bytes(data));
NU_CLOSURE(tree, m_vec, vec(pixels), vec(pixels, ps));

int use_them(struct tree_ref t, struct leaf_ref l);
int use_them(struct tree_ref t, struct leaf_ref l)
{
	NU_SCOPED(leaf, mine);
	NU_SCOPED_FUTURE(tree, m_str, f);
	NU_SCOPED_FUTURE(leaf, create, creating);
	int got, ret = leaf_get(l);

	if (!ret)
		ret = tree_m_str_async(t, &f);
	if (!ret)
		ret = leaf_create_async(NULL, &creating);
	if (!ret)
		ret = leaf_create_wait(&creating, &mine);
	return ret ? ret : tree_m_val(t, nu_str("x"), &got);
}
