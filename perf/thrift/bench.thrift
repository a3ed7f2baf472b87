# SPDX-License-Identifier: MIT
# What nu_perf's call_rate does, for Apache Thrift.
namespace cpp bench

service Bench {
  void work(1: i64 iterations)
  # Calls a second of the plain function in the server, for so long.
  double plain(1: i64 iterations, 2: i64 windowUs)
  double iterationsPerUs()
}
