"""The workbook of runs: reading and checking its rows, building the project's own, recording results. No torch."""
