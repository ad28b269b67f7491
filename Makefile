# The book is made in one direction: book/ (write) → nbs/ (run) → gpt2edu/ (import) → _site/ (read).
PYTHON ?= python

.PHONY: book book-all check site test quick slow

book:            ## notebooks and library of every manuscript that changed: sync, export, execute, clean
	$(PYTHON) tools/book.py
	$(PYTHON) tools/commands.py
	$(PYTHON) tools/lists.py
	$(PYTHON) tools/diagrams.py
	$(PYTHON) tools/api.py

book-all:        ## the same for every manuscript, executed again
	$(PYTHON) tools/book.py --all

check:           ## the gates that CI runs after the tests
	$(PYTHON) tools/book.py --check
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) tools/commands.py --check
	$(PYTHON) tools/lists.py --check
	$(PYTHON) tools/diagrams.py --check
	$(PYTHON) tools/api.py --check
	$(PYTHON) tools/check_site.py
	$(PYTHON) -m pytest tests/test_repo.py

site:            ## the website: with Quarto where it is installed, else a preview by smalldocs
	@if command -v quarto > /dev/null; then quarto render; \
	else echo "quarto is not installed; this is the preview of tools/preview.py"; $(PYTHON) tools/preview.py; fi

test:            ## what the README's second line runs
	$(PYTHON) -m pytest

quick:           ## what CI runs on every system and every Python
	$(PYTHON) -m pytest -m quick

slow:            ## the long series of faults
	$(PYTHON) -m pytest -m slow
