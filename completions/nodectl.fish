# fish completion for nodectl. The program itself is asked at each press of Tab, as it knows its flags and
# the runtime's containers, pods and images.
function __nodectl_complete
    set -l current (commandline --current-token --cut-at-cursor | string unescape)
    set -l answer (nodectl __complete fish "=$current" (commandline --current-process --tokenize --cut-at-cursor) 2>/dev/null)
    if test "$answer[1]" = files
        set -l flag (string match --regex -- '^--[^=]*=' $current)
        printf "$flag%s\n" (__fish_complete_path (string replace --regex -- '^--[^=]*=' '' $current))
        return
    end
    set --erase answer[1]
    printf '%s\n' $answer
end
complete --command nodectl --no-files --arguments '(__nodectl_complete)'
