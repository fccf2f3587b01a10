# bash completion for nodectl. The program itself is asked at each press of Tab, as it knows its flags and
# the runtime's containers, pods and images.
_nodectl() {
    local answer line LC_ALL=C
    COMPREPLY=()
    mapfile -t answer < <(nodectl __complete bash "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
    if [[ ${answer[0]-} == files ]]; then
        compopt -o default
        return
    fi
    for line in "${answer[@]:1}"; do
        COMPREPLY+=("${line%%$'\t'*}")
    done
}
complete -F _nodectl nodectl
