"""Completion of verbs and settings in bash and zsh: `source <(lens-hpc completion bash)`.

Python itself takes a second to start, so that `lens-hpc completion bash > FILE`, once, and `source
FILE` in ~/.bashrc is better where shells are started often.

The script holds all words, which come of the verbs' own settings, so that nothing is started while
somebody types.
"""

from lens_hpc.help import OTHER_WORDS, settings_of, verbs_in_order

BASH = r"""# Completion of lens-hpc in bash. For every shell: lens-hpc completion bash > FILE,
# and `source FILE` in ~/.bashrc.
_lens_hpc_keys() {
  case $1 in
@KEYS@
  esac
}
_lens_hpc_choices() {
  case $1 in
@CHOICES@
  esac
}
_lens_hpc() {
  local verb=${COMP_WORDS[1]} current=${COMP_WORDS[COMP_CWORD]}
  local previous=${COMP_WORDS[COMP_CWORD-1]} key= words=
  COMPREPLY=()
  compopt -o default

  # bash takes key=value for three words, of which the last two may not be there yet.
  if [[ $current == = ]]; then key=$previous current=
  elif [[ $previous == = ]]; then key=${COMP_WORDS[COMP_CWORD-2]}
  fi

  if ((COMP_CWORD == 1)); then words="@VERBS@"
  elif [[ -n $key ]]; then words=$(_lens_hpc_choices "$verb.$key")
  elif [[ $verb == help || $verb == config ]]; then words="@WORK@"
  elif [[ $verb == completion ]]; then words="@SHELLS@"
  elif ((COMP_CWORD > 2)); then words=$(_lens_hpc_keys "$verb")
  fi
  [[ -n $words ]] || return 0
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace; fi
}
complete -F _lens_hpc lens-hpc
"""
ZSH = r"""#compdef lens-hpc
# Completion of lens-hpc in zsh. For every shell: lens-hpc completion zsh > FILE,
# and `source FILE` in ~/.zshrc, behind compinit.
_lens_hpc_keys() {
  case $1 in
@KEYS@
  esac
}
_lens_hpc_choices() {
  case $1 in
@CHOICES@
  esac
}
_lens_hpc() {
  local verb=${words[2]} key found
  if (( CURRENT == 2 )); then
    compadd -- @VERBS@
  elif [[ $verb == help || $verb == config ]]; then
    compadd -- @WORK@
  elif [[ $verb == completion ]]; then
    compadd -- @SHELLS@
  elif (( CURRENT == 3 )); then
    _files
  elif [[ $PREFIX == *=* ]]; then
    key=${PREFIX%%=*}
    found=$(_lens_hpc_choices "$verb.$key")
    compset -P '*='
    if [[ -n $found ]]; then compadd -- ${=found}; else _files; fi
  else
    compadd -S '' -- $(_lens_hpc_keys "$verb")
    _files
  fi
}
compdef _lens_hpc lens-hpc
"""


SCRIPTS = {"bash": BASH, "zsh": ZSH}


def completion_script(shell: str) -> str:
    """Return the script for a shell, bash or zsh."""
    of_verbs = {name: settings_of(name) for name in verbs_in_order()}
    keys = []
    choices = []
    for verb, settings in of_verbs.items():
        words = " ".join(f"{setting.key}=" for setting in settings)
        keys.append(f'    {verb}) echo "{words}" ;;')
        for setting in settings:
            if setting.choices:
                choices.append(f'    {verb}.{setting.key}) echo "{" ".join(setting.choices)}" ;;')

    fields = {
        "KEYS": "\n".join(keys),
        "CHOICES": "\n".join(choices),
        "VERBS": " ".join([*of_verbs, *OTHER_WORDS]),
        "WORK": " ".join(of_verbs),
        "SHELLS": " ".join(SCRIPTS),
    }
    script = SCRIPTS[shell]
    for name, text in fields.items():
        script = script.replace(f"@{name}@", text)
    return script
