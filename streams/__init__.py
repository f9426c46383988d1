"""Runtimes that carry blocks: Faust live, the backtest in-process."""
