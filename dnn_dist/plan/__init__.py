# SPDX-License-Identifier: Apache-2.0
"""Which way to choose. Imports graph and cut.

    plan.py    the value that everybody shares: which model, which stages, what to fill in; robots import this alone
"""
