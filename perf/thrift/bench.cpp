// SPDX-License-Identifier: MIT
//
// Apache Thrift in the place of nu_perf's call_rate: a server process on one processor, a client process with several
// connections on another, calls that compute, and the plain function in the server in windows between. Prints nu_perf's
// JSON, a line for each computation. usage: bench tcp|unix CONNECTIONS WINDOWS WINDOW_MS US,US,...
#include "Bench.h"

#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>
#include <thrift/transport/TSocket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sched.h>
#include <sstream>
#include <string>
#include <sys/prctl.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace apache::thrift;
using protocol::TBinaryProtocol;
using transport::TFramedTransport;
using transport::TServerSocket;
using transport::TSocket;
using Clock = std::chrono::steady_clock;

static double seconds(Clock::time_point from)
{
	return std::chrono::duration<double>(Clock::now() - from).count();
}

static uint64_t __attribute__((noinline)) compute(uint64_t iterations)
{
	uint64_t x = iterations | 1;

	for (uint64_t i = 0; i < iterations; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

class Handler : public bench::BenchIf {
public:
	void work(const int64_t iterations) override { sum += compute((uint64_t)iterations); }
	double plain(const int64_t iterations, const int64_t windowUs) override
	{
		auto start = Clock::now();
		uint64_t calls = 0;

		do {
			for (int i = 0; i < 8; i++, calls++)
				sum += compute((uint64_t)iterations);
		} while (seconds(start) * 1e6 < (double)windowUs);
		return (double)calls / seconds(start);
	}
	double iterationsPerUs() override
	{
		double best = 0;

		for (int i = 0; i < 7; i++) {
			auto start = Clock::now();

			sum += compute(200000);
			best = std::max(best, 200000 / (seconds(start) * 1e6));
		}
		return best;
	}

private:
	std::atomic<uint64_t> sum{0};
};

static void bind_to(int cpu)
{
	cpu_set_t allowed, one;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &allowed) || cpu-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

/* Tells its port through the pipe when it listens. */
class Ready : public server::TServerEventHandler {
public:
	Ready(std::shared_ptr<TServerSocket> s, int f) : socket(std::move(s)), fd(f) {}
	void preServe() override
	{
		int port = socket->getPort();

		if (write(fd, &port, sizeof(port)) != (ssize_t)sizeof(port))
			_exit(1);
	}

private:
	std::shared_ptr<TServerSocket> socket;
	int fd;
};

static void serve(const std::string &path, int fd)
{
	auto socket = path.empty() ? std::make_shared<TServerSocket>("127.0.0.1", 0) : std::make_shared<TServerSocket>(path);
	server::TThreadedServer server(std::make_shared<bench::BenchProcessor>(std::make_shared<Handler>()), socket,
				       std::make_shared<transport::TFramedTransportFactory>(),
				       std::make_shared<protocol::TBinaryProtocolFactory>());

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bind_to(1);
	server.setServerEventHandler(std::make_shared<Ready>(socket, fd));
	server.serve();
	_exit(0);
}

static std::unique_ptr<bench::BenchClient> connect(const std::string &path, int port)
{
	auto socket = path.empty() ? std::make_shared<TSocket>("127.0.0.1", port) : std::make_shared<TSocket>(path);

	socket->setNoDelay(path.empty());
	socket->open();
	auto framed = std::make_shared<TFramedTransport>(socket);
	return std::make_unique<bench::BenchClient>(std::make_shared<TBinaryProtocol>(framed));
}

struct Result {
	std::vector<double> rates, limits, ratios, latencies_us;
};

static double window(std::vector<std::unique_ptr<bench::BenchClient>> &clients, int64_t iterations, double length,
		     std::vector<double> &latencies)
{
	std::vector<std::vector<double>> each(clients.size());
	std::vector<std::thread> threads;
	auto start = Clock::now();
	uint64_t calls = 0;

	for (size_t i = 0; i < clients.size(); i++)
		threads.emplace_back([&, i] {
			while (seconds(start) < length) {
				auto begin = Clock::now();

				clients[i]->work(iterations);
				each[i].push_back(seconds(begin) * 1e6);
			}
		});
	for (auto &t : threads)
		t.join();
	double took = seconds(start);
	for (auto &e : each) {
		calls += e.size();
		latencies.insert(latencies.end(), e.begin(), e.end());
	}
	return (double)calls / took;
}

static double at(std::vector<double> &v, double q)
{
	std::sort(v.begin(), v.end());
	return v.empty() ? 0 : v[std::min(v.size() - 1, (size_t)(q * (double)v.size()))];
}

static void print(const char *transport, size_t connections, double us, Result &r)
{
	auto &l = r.latencies_us;
	double sum = 0;

	for (double v : l)
		sum += v;
	printf("{\"test\":\"thrift\",\"size_bytes\":0,\"outstanding\":%zu,\"threads\":1,\"compute_us\":%g,\"reader\":null,"
	       "\"transport\":\"%s\",\"unit\":\"us\",\"count\":%zu,\"min\":%.3f,\"avg\":%.3f,\"p50\":%.3f,\"p90\":%.3f,"
	       "\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f,\"rate\":%.1f,\"limit_name\":\"plain calls in the server\","
	       "\"limit_p50\":null,\"limit_rate\":%.1f,\"ratio\":%.5f}\n",
	       connections, us, transport, l.size(), at(l, 0), sum / (double)l.size(), at(l, .5), at(l, .9), at(l, .99),
	       at(l, .999), at(l, 1), at(r.rates, .5), at(r.limits, .5), at(r.ratios, .5));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int fds[2], port = 0;

	if (argc != 6 || (strcmp(argv[1], "tcp") && strcmp(argv[1], "unix")) || pipe(fds)) {
		fprintf(stderr, "usage: bench tcp|unix CONNECTIONS WINDOWS WINDOW_MS US,US,...\n");
		return 2;
	}
	char folder[] = "/tmp/nu-thrift-XXXXXX";
	bool local = !strcmp(argv[1], "unix");
	if (!mkdtemp(folder))
		return 1;
	std::string path = local ? std::string(folder) + "/socket" : "";
	pid_t server = fork();
	if (!server)
		serve(path, fds[1]);
	close(fds[1]);
	int status = read(fds[0], &port, sizeof(port)) == (ssize_t)sizeof(port) ? 0 : 1;
	try {
		std::vector<std::unique_ptr<bench::BenchClient>> clients;
		std::stringstream list(argv[5]);
		std::string us;
		double length = atof(argv[4]) / 1e3;

		bind_to(0);
		for (int i = 0; i < atoi(argv[2]) && !status; i++)
			clients.push_back(connect(path, port));
		double per_us = status ? 0 : clients[0]->iterationsPerUs();
		while (!status && std::getline(list, us, ',')) {
			int64_t iterations = (int64_t)(atof(us.c_str()) * per_us);
			std::vector<double> warm;
			Result r;

			window(clients, iterations, length, warm);
			for (int i = 0; i < atoi(argv[3]); i++) {
				r.rates.push_back(window(clients, iterations, length, r.latencies_us));
				r.limits.push_back(clients[0]->plain(iterations, (int64_t)(length * 1e6)));
				r.ratios.push_back(r.rates.back() / r.limits.back());
			}
			print(argv[1], clients.size(), atof(us.c_str()), r);
		}
	} catch (const std::exception &e) {
		fprintf(stderr, "bench: %s\n", e.what());
		status = 1;
	}
	kill(server, SIGKILL);
	unlink(path.c_str());
	rmdir(folder);
	return status;
}
