/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target over the files of its corpus: no fuzzing, no clang. usage: TARGET DIRECTORY|FILE... */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static unsigned ran;

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return 0;
}

static void replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data;

	if (!f || fstat(fileno(f), &st)) {
		perror(path);
		exit(1);
	}
	data = malloc((size_t)st.st_size + 1);
	if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
		perror(path);
		exit(1);
	}
	fclose(f);
	fprintf(stderr, "%s\n", path); /* the last line names a crash's cause */
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	free(data);
	ran++;
}

static void replay(const char *path)
{
	DIR *d = opendir(path);
	char name[4096];

	if (!d) {
		replay_file(path);
		return;
	}
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		replay_file(name);
	}
	closedir(d);
}

int main(int argc, char **argv)
{
	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (!ran) {
		fprintf(stderr, "no corpus\n");
		return 1;
	}
	printf("%u inputs\n1 passed, 0 failed, 0 skipped\n", ran);
	fflush(NULL);
	_Exit(0); /* a fake node's kernel threads go on */
}
