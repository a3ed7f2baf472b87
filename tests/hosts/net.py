#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
print("0 passed, 0 failed, 1 skipped")
