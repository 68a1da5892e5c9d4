"""pymimic does without torch; pymimic.torch says what to install."""

import subprocess
import sys

import pytest


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pymimic_does_not_import_torch():
    assert (
        run("import sys, pymimic, pymimic.cli; print([name for name in sys.modules if name.startswith(('torch', 'pymimic.torch'))])")
        == "[]\n"
    )


@pytest.mark.parametrize(
    ("torch", "said"),
    [("None", "expected PyTorch, which cannot be imported"), ("types.SimpleNamespace(__version__='2.1.0')", "or later, got 2.1.0")],
)
def test_without_a_torch_that_is_new_enough_it_says_what_to_install(torch, said):
    script = (
        f"import sys, types; sys.modules['torch'] = {torch}\ntry:\n    import pymimic.torch\nexcept ImportError as error:\n    print(error)"
    )
    message = run(script)
    assert message.startswith("pymimic.torch: ")
    assert said in message
    assert message.endswith('pip install "torch>=2.13"\n')
