"""
The measurements: C{make bench}, or C{python -m tests.kernel.bench}.

Each part is a module that knows what it measures, how that is run, and how it is shown:
L{starting<tests.kernel.bench.starting>}, L{server<tests.kernel.bench.server>},
L{storm<tests.kernel.bench.storm>}, L{native<tests.kernel.bench.native>},
L{soak<tests.kernel.bench.soak>}.  Everything under L{tests.kernel.bench.guest} runs
where the agents run.
"""
