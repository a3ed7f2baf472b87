/* SPDX-License-Identifier: MIT */
/*
 * Reading and taking apart the file of keys and values.
 */
#include "kvstore_file.h"

#include "htmap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int __attribute__((format(printf, 3, 4)))
kv_file_fail(struct kv_file *f, int err, const char *fmt, ...)
{
	va_list ap;

	kv_file_fini(f);
	va_start(ap, fmt);
	vsnprintf(f->cause, sizeof(f->cause), fmt, ap);
	va_end(ap);
	return err;
}

void kv_file_fini(struct kv_file *f)
{
	free(f->records);
	free(f->data);
	free(f->numbers);
	f->records = NULL;
	f->data = f->numbers = NULL;
	f->count = 0;
}

/* Appends what @fd gives to *data_p. One byte more than the size is asked for, so that the end is seen at once. */
static int kv_read_all(int fd, size_t size_hint, char **data_p, size_t *len_p)
{
	size_t room = size_hint + 1, len = 0;
	char *data = malloc(room), *bigger;
	ssize_t n;

	while (data) {
		n = read(fd, data + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			n = -errno;
			free(data);
			return (int)n;
		}
		if (!n) {
			*data_p = data;
			*len_p = len;
			return 0;
		}
		len += (size_t)n;
		if (len == room) {
			room = room < 65536 ? 65536 : room * 2;
			bigger = realloc(data, room);
			if (!bigger)
				free(data);
			data = bigger;
		}
	}
	return -ENOMEM;
}

int kv_file_read(struct kv_file *f, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	struct stat st;
	char *data = NULL;
	size_t len = 0;

	memset(f, 0, sizeof(*f));
	if (fd < 0) {
		err = -errno;
		return kv_file_fail(f, err, "%s: %s", path, strerror(-err));
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		st.st_size = 0;
	err = kv_read_all(fd, (size_t)st.st_size, &data, &len);
	close(fd);
	if (err == -ENOMEM)
		return kv_file_fail(f, err,
				    "%s: its %" PRIu64 " bytes do not fit into the main proclet's heap", path,
				    (uint64_t)st.st_size);
	if (err)
		return kv_file_fail(f, err, "%s: %s", path, strerror(-err));
	return kv_file_parse(f, path, data, len);
}

static size_t kv_count_lines(const char *data, size_t len)
{
	const char *p = data, *end = data + len;
	size_t lines = 0;

	while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
		lines++;
		p++;
	}
	return lines + (len && data[len - 1] != '\n');
}

/* Decimal digits of @n to @to. snprintf would take half of the time of a large load. */
static size_t kv_put_number(char *to, uint64_t n)
{
	char digits[20];
	size_t len = 0;

	do
		digits[len++] = (char)('0' + n % 10);
	while (n /= 10);
	for (size_t i = 0; i < len; i++)
		to[i] = digits[len - 1 - i];
	return len;
}

/* The distinct keys so far, as record numbers + 1 in an open table. */
struct kv_seen {
	uint32_t *slots;
	size_t mask;
};

/* The record with @r's key, or a new one. */
static struct kv_record *kv_seen_enter(struct kv_seen *seen, struct kv_file *f, const struct kv_record *r)
{
	size_t i = htmap_hash(r->key, r->key_len) & seen->mask;
	struct kv_record *other;

	for (; seen->slots[i]; i = (i + 1) & seen->mask) {
		other = &f->records[seen->slots[i] - 1];
		if (other->key_len == r->key_len && !memcmp(other->key, r->key, r->key_len))
			return other;
	}
	seen->slots[i] = (uint32_t)++f->count;
	return &f->records[f->count - 1];
}

static int kv_parse_lines(struct kv_file *f, struct kv_seen *seen, size_t len)
{
	const char *p = f->data, *end = f->data + len, *eol, *tab;
	char *number = f->numbers;
	struct kv_record r;

	for (uint64_t line = 1; p < end; line++, p = eol + 1) {
		eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		if ((size_t)(eol - p) > KV_RECORD_MAX_BYTES) {
			f->lines = line;
			return -EMSGSIZE;
		}
		tab = memchr(p, '\t', (size_t)(eol - p));
		r.key = p;
		r.key_len = (uint32_t)((tab ? tab : eol) - p);
		if (tab) {
			r.value = tab + 1;
			r.value_len = (uint32_t)(eol - tab - 1);
		} else {
			r.value = number;
			r.value_len = (uint32_t)kv_put_number(number, line);
			number += r.value_len;
		}
		*kv_seen_enter(seen, f, &r) = r;
	}
	return 0;
}

int kv_file_parse(struct kv_file *f, const char *name, char *data, size_t len)
{
	size_t lines = kv_count_lines(data, len), slots = 16;
	struct kv_seen seen;
	int err;

	memset(f, 0, sizeof(*f));
	f->data = data;
	f->bytes = len;
	f->lines = lines;
	while (slots < lines + lines / 2)
		slots *= 2;
	if (lines >= UINT32_MAX)
		return kv_file_fail(f, -EMSGSIZE, "%s: more than %u lines", name, UINT32_MAX - 1);
	f->records = calloc(lines + 1, sizeof(*f->records));
	f->numbers = malloc(lines * 10 + 1);
	seen.slots = calloc(slots, sizeof(*seen.slots));
	seen.mask = slots - 1;
	err = f->records && f->numbers && seen.slots ? kv_parse_lines(f, &seen, len) : -ENOMEM;
	free(seen.slots);
	if (err == -ENOMEM)
		return kv_file_fail(f, err, "%s: no memory for its %zu lines", name, lines);
	if (err)
		return kv_file_fail(f, err, "%s: line %" PRIu64 " is longer than the most, %zu bytes", name,
				    f->lines, KV_RECORD_MAX_BYTES);
	return 0;
}
