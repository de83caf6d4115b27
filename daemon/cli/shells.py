"""What a shell and `daemon` say to each other when Tab is pressed, in bash, zsh and fish.

A script sends the line up to the cursor and gets one candidate a line: its kind, its text and what it is, with tabs
between. click's own scripts take the words as the shell has divided them, and so fail on `--home=DIR`, on URLs and on
names with blanks.
"""

import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

from click import Context, Parameter
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from daemon.cli.output import one_line

FILE, DIRECTORY, COMMAND = "file", "dir", "command"
"""Kinds that the shell completes by itself: click's two, and one for names of programs."""

_CURSOR = "\x01"
"""Stands at the end of the line while it is divided, so that an empty last word is one."""
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_REDIRECTION = re.compile(r"[0-9&]*(>>?|<)&?")
_SPECIAL = re.compile(r"([^A-Za-z0-9_@%+=:,./-])")
_LISTED = {33, 63, 64}
"""COMP_TYPE (bash(1)) where bash shows the candidates: `!`, `?` and `@`."""

_BASH = """\
_daemon_completion() {
    local kind value
    COMPREPLY=()
    while IFS=$'\\t' read -r kind value; do
        case $kind in
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
            command) while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -c -- "$2") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(_DAEMON_COMPLETE=bash_complete COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="$2" \\
        COMP_TYPE="$COMP_TYPE" COLUMNS="${COLUMNS-}" "${1/#\\~/$HOME}" 2>/dev/null)
}

complete -o nosort -F _daemon_completion daemon
"""

_ZSH = """\
#compdef daemon

_daemon_completion() {
    local -a described plain
    local kind value help found=1 line="${(j: :)words[1,CURRENT-1]} ${words[CURRENT]%"$SUFFIX"}"
    local -a answer=("${(@f)$(_DAEMON_COMPLETE=zsh_complete COMP_LINE=$line ${~words[1]} 2>/dev/null)}")
    [[ $PREFIX == -*=* ]] && compset -P '*='
    for line in $answer; do
        IFS=$'\\t' read -r kind value help <<<"$line"
        case $kind in
            file) _files && found=0 ;;
            dir) _files -/ && found=0 ;;
            command) _command_names -e && found=0 ;;
            plain) if [[ -n $help ]]; then described+=("${value//:/\\\\:}:$help"); else plain+=("$value"); fi ;;
        esac
    done
    (( $#described )) && _describe -V -t values value described && found=0
    (( $#plain )) && compadd -V values -a plain && found=0
    return found
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _daemon_completion "$@"
else
    compdef _daemon_completion daemon
fi
"""

_FISH = """\
function __daemon_complete
    set -l program (string match -v -r '^\\\\w+=' -- (commandline -opc))[1]
    set -l token (commandline -ct)
    set -l option (string match -r -- '^-[^=]*=' $token)
    set -l rest (string replace -r -- '^-[^=]*=' '' $token)
    set -l line (commandline -cp | string collect)
    set program (string replace -r '^~' $HOME -- $program)
    for answer in (env _DAEMON_COMPLETE=fish_complete COMP_LINE=$line $program 2>/dev/null)
        set -l parts (string split -m 2 \\t -- $answer)
        switch $parts[1]
            case file
                __fish_complete_path $rest | string replace -r -- '^' "$option"
            case dir
                __fish_complete_directories $rest | string replace -r -- '^' "$option"
            case command
                complete -C (string escape -- $rest)
            case plain
                printf '%s\\n' "$option$parts[2]"\\t"$parts[3]"
        end
    end
end

complete --command daemon --no-files --keep-order --arguments '(__daemon_complete)'
"""


class Shell(ShellComplete):
    """A shell that is told every candidate with what it is, and chooses and quotes by itself."""

    def source(self) -> str:
        """Return the script."""
        return self.source_template

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the whole words before the one at the cursor, and that one up to the cursor, unquoted."""
        *words, last = split_arg_string(os.environ.get("COMP_LINE", "") + _CURSOR)
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        return words[1:], last.removesuffix(_CURSOR)

    def complete(self) -> str:
        """Return the candidates for the word at the cursor, one a line."""
        words, incomplete = self.get_completion_args()
        # click takes the option of `--option=VALUE` for a word of its own, and appends it to the list.
        items = self.get_completions(list(words), incomplete)
        return "".join(f"{line}\n" for line in self.lines(items, words, incomplete))

    def lines(self, items: Sequence[CompletionItem[str]], words: list[str], incomplete: str) -> list[str]:
        """Return the answer of this shell.

        Args:
            items: the candidates.
            words: before the one at the cursor.
            incomplete: that one.
        """
        return [_line(item.type, item.value, item.help) for item in items if item.value.isprintable()]


class Bash(Shell):
    """bash: it replaces what stands after its last separator, quotes nothing, and knows no descriptions."""

    name = "bash"
    source_template = _BASH

    def lines(self, items: Sequence[CompletionItem[str]], words: list[str], incomplete: str) -> list[str]:
        """Return the answer; where bash lists the candidates they say what they are, as text that is never typed."""
        if words and _REDIRECTION.fullmatch(words[-1]):
            return [_line(FILE, "", None)]
        plain = [item for item in items if item.type == "plain" and item.value.isprintable()]
        texts = [self._typed(item.value, incomplete) for item in plain]
        if len(plain) > 1 and int(os.environ.get("COMP_TYPE") or 0) in _LISTED:
            texts = _described(texts, [item.help for item in plain])
        others = [_line(item.type, "", None) for item in items if item.type != "plain"]
        return [_line("plain", text, None) for text in texts] + others

    def _typed(self, value: str, incomplete: str) -> str:
        """Return what takes the place of the last piece of the line: of `http://h` bash replaces `//h` alone."""
        piece = os.environ.get("COMP_WORD", "")
        quoted = os.environ.get("COMP_LINE", "").removesuffix(piece).endswith(('"', "'"))
        replaced = piece if quoted else "".join(split_arg_string(piece))
        rest = f"{_option(incomplete)}{value}".removeprefix(incomplete[: len(incomplete) - len(replaced)])
        return rest if quoted else _SPECIAL.sub(r"\\\1", rest)


class Zsh(Shell):
    """zsh."""

    name = "zsh"
    source_template = _ZSH


class Fish(Shell):
    """fish."""

    name = "fish"
    source_template = _FISH


def files(_ctx: Context, _param: Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Let the shell complete a file."""
    return [CompletionItem(incomplete, type=FILE)]


def directories(_ctx: Context, _param: Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Let the shell complete a directory."""
    return [CompletionItem(incomplete, type=DIRECTORY)]


def program(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Let the shell complete the name of a program, then its files; begun at least, for there are thousands."""
    begun = bool(ctx.params.get(str(param.name)))
    return [CompletionItem(incomplete, type=FILE if begun else COMMAND)] if begun or incomplete else []


SHELLS: dict[str, type[Shell]] = {kind.name: kind for kind in (Bash, Zsh, Fish)}


def _option(incomplete: str) -> str:
    """Return the `--option=` that a word begins with; a completion is what follows it."""
    name, equals, _ = incomplete.partition("=")
    return name + equals if equals and name.startswith("-") else ""


def _line(kind: str, value: Any, meaning: str | None) -> str:
    return "\t".join((kind, str(value), one_line(meaning or ""))).rstrip("\t")


def _described(texts: list[str], meanings: list[str | None]) -> list[str]:
    width = max(map(len, texts))
    columns = shutil.get_terminal_size().columns - 1
    return [
        f"{text:<{width}}  ({one_line(meaning)})"[:columns] if meaning else text
        for text, meaning in zip(texts, meanings, strict=True)
    ]
