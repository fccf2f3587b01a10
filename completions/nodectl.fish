# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nodectl_global_optspecs
    string join \n h/help V/version
end

function __fish_nodectl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nodectl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nodectl_using_subcommand
    set -l cmd (__fish_nodectl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nodectl -n "__fish_nodectl_needs_command" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_needs_command" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "pods" -d 'List the pods of the agent on this node'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "explain" -d 'Say where a pod stands: its step, last error, and what comes next'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "cri" -d 'Look into a container runtime, with crictl\'s verbs and flags'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "config" -d 'Print default configuration, or check configuration files'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "completions" -d 'Write a completion script for a shell to standard output'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "run" -d 'Run the node agent in kubelet\'s place'
complete -c nodectl -n "__fish_nodectl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodectl -n "__fish_nodectl_using_subcommand pods" -s o -l output -d 'Output format; json and yaml are a v1 List of Pods' -r -f -a "table\t'A table'
wide\t'A table with more columns'
json\t'JSON'
yaml\t'YAML'"
complete -c nodectl -n "__fish_nodectl_using_subcommand pods" -s n -l namespace -d 'Only pods of this namespace' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand pods" -l socket -d 'The agent\'s operator socket' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand pods" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodectl -n "__fish_nodectl_using_subcommand pods" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand explain" -s n -l namespace -d 'Only pods of this namespace' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand explain" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodectl -n "__fish_nodectl_using_subcommand explain" -l socket -d 'The agent\'s operator socket' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodectl -n "__fish_nodectl_using_subcommand explain" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s r -l runtime-endpoint -d 'The runtime\'s socket; without it, that of the configuration file, else the known ones are tried' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s i -l image-endpoint -d 'The socket of the image service, if not the runtime\'s' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s t -l timeout -d 'How long a call may take, as in 5s, 1m30s or 5 (seconds); 10s unless the configuration file says' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s c -l config -d 'The client\'s configuration file, crictl\'s own' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s D -l debug -d 'Say on stderr what is asked, where, and how long the answer takes'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "version" -d 'Show the runtime\'s name and versions'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "info" -d 'Show the runtime\'s state, configuration and handlers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "ps" -d 'List containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "pods" -d 'List pods'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "images" -d 'List images'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "image" -d 'List images'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "img" -d 'List images'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "inspect" -d 'Show all about containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "inspectp" -d 'Show all about pods'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "inspecti" -d 'Show all about images'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "exec" -d 'Run a command in a container, or in each of several'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "attach" -d 'Attach to a container\'s main process'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "port-forward" -d 'Forward local ports to a pod'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "imagefsinfo" -d 'Show where images are stored and what they take'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "runtime-config" -d 'Show what the runtime tells the agent to do: the cgroup driver'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "config" -d 'Show and change the client\'s configuration, /etc/crictl.yaml'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and not __fish_seen_subcommand_from version info ps pods images image img inspect inspectp inspecti exec attach port-forward imagefsinfo runtime-config config help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from version" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from version" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from version" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from version" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from info" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from info" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from info" -s q -l quiet -d 'Without the runtime\'s configuration'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from info" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l id -d 'Only the container with this id, or the beginning of one' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l name -d 'Only containers with a name that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s p -l pod -d 'Only containers of this pod: its id, the beginning of it, UID, or NAMESPACE/NAME' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l namespace -d 'Only containers of pods in namespaces that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l image -d 'Only containers of this image: a name, or the beginning of its id' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s s -l state -d 'Only containers in this state' -r -f -a "created\t''
running\t''
exited\t''
unknown\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l label -d 'Only containers with this label; may be repeated, and all must fit' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s n -l last -d 'Only the N newest containers, in whatever state; 0 for all' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s a -l all -d 'Containers in all states, not only running ones'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s l -l latest -d 'Only the newest container, in whatever state'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s q -l quiet -d 'Only ids, one a line'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s v -l verbose -d 'Several lines for each container, with labels and annotations'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -l no-trunc -d 'Whole ids'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s r -l resolve-image-path -d 'Names of images in place of their ids, which is what is printed anyway'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from ps" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -l id -d 'Only the pod with this id or UID, or the beginning of one, or NAMESPACE/NAME' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -l name -d 'Only pods with a name that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -l namespace -d 'Only pods in namespaces that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s s -l state -d 'Only pods in this state' -r -f -a "ready\t''
notready\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -l label -d 'Only pods with this label; may be repeated, and all must fit' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s n -l last -d 'Only the N newest pods; 0 for all' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s l -l latest -d 'Only the newest pod'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s q -l quiet -d 'Only ids, one a line'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s v -l verbose -d 'Several lines for each pod, with labels and annotations'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -l no-trunc -d 'Whole ids'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from pods" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -s f -l filter -d 'Only images that fit: dangling=true, dangling=false, reference=REGEX; may be repeated' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -s q -l quiet -d 'Only ids, one a line'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -s v -l verbose -d 'Several lines for each image'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -l no-trunc -d 'Whole ids and digests'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -l digests -d 'A column with digests'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -l pinned -d 'A column that says which images are never removed as unused'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from images" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -s f -l filter -d 'Only images that fit: dangling=true, dangling=false, reference=REGEX; may be repeated' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -s q -l quiet -d 'Only ids, one a line'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -s v -l verbose -d 'Several lines for each image'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -l no-trunc -d 'Whole ids and digests'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -l digests -d 'A column with digests'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -l pinned -d 'A column that says which images are never removed as unused'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from image" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -s f -l filter -d 'Only images that fit: dangling=true, dangling=false, reference=REGEX; may be repeated' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -s q -l quiet -d 'Only ids, one a line'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -s v -l verbose -d 'Several lines for each image'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -l no-trunc -d 'Whole ids and digests'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -l digests -d 'A column with digests'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -l pinned -d 'A column that says which images are never removed as unused'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from img" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -l id -d 'Only the container with this id, or the beginning of one' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -l name -d 'Only containers with a name that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s p -l pod -d 'Only containers of this pod: its id, the beginning of it, UID, or NAMESPACE/NAME' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -l namespace -d 'Only containers of pods in namespaces that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -l image -d 'Only containers of this image: a name, or the beginning of its id' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s s -l state -d 'Only containers in this state' -r -f -a "created\t''
running\t''
exited\t''
unknown\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -l label -d 'Only containers with this label; may be repeated, and all must fit' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s n -l last -d 'Only the N newest containers, in whatever state; 0 for all' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s a -l all -d 'Containers in all states, not only running ones'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s l -l latest -d 'Only the newest container, in whatever state'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s q -l quiet -d 'Without what the runtime adds to the status'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspect" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -l id -d 'Only the pod with this id or UID, or the beginning of one, or NAMESPACE/NAME' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -l name -d 'Only pods with a name that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -l namespace -d 'Only pods in namespaces that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s s -l state -d 'Only pods in this state' -r -f -a "ready\t''
notready\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -l label -d 'Only pods with this label; may be repeated, and all must fit' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s n -l last -d 'Only the N newest pods; 0 for all' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s l -l latest -d 'Only the newest pod'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s q -l quiet -d 'Without what the runtime adds to the status'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspectp" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspecti" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspecti" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspecti" -s q -l quiet -d 'Without what the runtime adds to the status'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspecti" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from inspecti" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l timeout -d 'How long the command may take; 0 for as long as it wants. With --sync it is killed then' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l name -d 'In all containers with a name that this regular expression finds something in' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s p -l pod -d 'In all containers of this pod: its id, the beginning of it, UID, or NAMESPACE/NAME' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l image -d 'In all containers of this image: a name, or the beginning of its id' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l state -d 'In all containers in this state; running ones unless given' -r -f -a "created\t''
running\t''
exited\t''
unknown\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l label -d 'In all containers with this label; may be repeated, and all must fit' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s n -l last -d 'In the N newest containers; 0 for all' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s r -l transport -d 'What to speak; without it SPDY, and WebSocket where the runtime refuses that' -r -f -a "spdy\t''
websocket\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l tls-sni -l tls-server-name -d 'The name that the streaming server\'s certificate must be for' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l tls-ca -d 'A file with the certificate of the authority that the streaming server\'s must be from' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l tls-cert -d 'A file with a certificate to show to the streaming server' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -l tls-key -d 'A file with that certificate\'s key' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s i -l interactive -l stdin -d 'Give the command this process\'s input'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s t -l tty -d 'Give the command a terminal; with -i the one that this is typed in, which Ctrl-P Ctrl-Q leaves'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s s -l sync -d 'Have the runtime run the command and print its output when it has ended, at most 16 MiB'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s l -l latest -d 'In the newest container'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s q -l quiet -d 'Do not print the ids of several containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s e -l ignore-errors -d 'Exit with 0 whatever happens in the containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s x -l parallel -d 'In several containers at the same time'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from exec" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -s r -l transport -d 'What to speak; without it SPDY, and WebSocket where the runtime refuses that' -r -f -a "spdy\t''
websocket\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -l tls-sni -l tls-server-name -d 'The name that the streaming server\'s certificate must be for' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -l tls-ca -d 'A file with the certificate of the authority that the streaming server\'s must be from' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -l tls-cert -d 'A file with a certificate to show to the streaming server' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -l tls-key -d 'A file with that certificate\'s key' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -s i -l stdin -l interactive -d 'Give the main process this process\'s input'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -s t -l tty -d 'The container has a terminal; with -i it is the one that this is typed in, which Ctrl-P Ctrl-Q leaves'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from attach" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -l address -d 'Where to listen: addresses, or localhost for 127.0.0.1 and ::1' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -s r -l transport -d 'What to speak; without it SPDY, and WebSocket where the runtime refuses that' -r -f -a "spdy\t''
websocket\t''"
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -l tls-sni -l tls-server-name -d 'The name that the streaming server\'s certificate must be for' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -l tls-ca -d 'A file with the certificate of the authority that the streaming server\'s must be from' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -l tls-cert -d 'A file with a certificate to show to the streaming server' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -l tls-key -d 'A file with that certificate\'s key' -r -F
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from port-forward" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from imagefsinfo" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from imagefsinfo" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from imagefsinfo" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from imagefsinfo" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from runtime-config" -s o -l output -l format -d 'table, json, yaml, go-template (with --template), go-template=TEMPLATE, or a template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from runtime-config" -l template -d 'A Go template, for -o go-template' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from runtime-config" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from runtime-config" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from config" -l get -d 'Print one setting' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from config" -l set -d 'Change settings; may be repeated, or hold several with commas between' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from config" -l list -d 'Print all settings (the default)'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from config" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from config" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "version" -d 'Show the runtime\'s name and versions'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "info" -d 'Show the runtime\'s state, configuration and handlers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "ps" -d 'List containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "pods" -d 'List pods'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "images" -d 'List images'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "inspect" -d 'Show all about containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "inspectp" -d 'Show all about pods'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "inspecti" -d 'Show all about images'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "exec" -d 'Run a command in a container, or in each of several'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "attach" -d 'Attach to a container\'s main process'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "port-forward" -d 'Forward local ports to a pod'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "imagefsinfo" -d 'Show where images are stored and what they take'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "runtime-config" -d 'Show what the runtime tells the agent to do: the cgroup driver'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "config" -d 'Show and change the client\'s configuration, /etc/crictl.yaml'
complete -c nodectl -n "__fish_nodectl_using_subcommand cri; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and not __fish_seen_subcommand_from defaults validate help" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and not __fish_seen_subcommand_from defaults validate help" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and not __fish_seen_subcommand_from defaults validate help" -f -a "defaults" -d 'Print the KubeletConfiguration that is in force where nothing is configured, as YAML'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and not __fish_seen_subcommand_from defaults validate help" -f -a "validate" -d 'Check KubeletConfiguration files: exit code 0 if all are valid, else 2'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and not __fish_seen_subcommand_from defaults validate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from defaults" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from defaults" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from validate" -s o -l output -d 'Form of the report' -r -f -a "text\t'A line for each problem and warning'
json\t'One JSON object for all files'"
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from validate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from validate" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "defaults" -d 'Print the KubeletConfiguration that is in force where nothing is configured, as YAML'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "validate" -d 'Check KubeletConfiguration files: exit code 0 if all are valid, else 2'
complete -c nodectl -n "__fish_nodectl_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodectl -n "__fish_nodectl_using_subcommand completions" -s h -l help -d 'Print help'
complete -c nodectl -n "__fish_nodectl_using_subcommand completions" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l config -d 'File with the KubeletConfiguration' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l config-dir -d 'Folder of drop-ins (*.conf) merged over --config' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l root-dir -d 'Folder of the agent\'s own files' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l hostname-override -d 'Node name, instead of the machine\'s host name' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l node-ip -d 'Addresses of the node: one, or one of each family' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l node-labels -d 'Labels of the node, which pods may ask for' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l operator-socket -d 'Local socket for nodectl pods and explain' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l container-log-dir -d 'Folder of links to container logs by name' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l runtime-class-path -d 'Folder of runtime class manifests' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -s v -l v -d 'Verbosity of the log, 0 to 10' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l seccomp-default -d 'RuntimeDefault where no seccomp profile is named' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l pod-manifest-path -d 'Folder or file of static pod manifests [key: staticPodPath]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l manifest-url -d 'URL of static pod manifests [key: staticPodURL]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l manifest-url-header -d 'Headers for --manifest-url, name:value [key: staticPodURLHeader]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l sync-frequency -d 'Longest time between two syncs of a pod [key: syncFrequency]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l file-check-frequency -d 'Time between two scans of --pod-manifest-path [key: fileCheckFrequency]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l http-check-frequency -d 'Time between two reads of --manifest-url [key: httpCheckFrequency]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l container-runtime-endpoint -d 'CRI socket of the runtime [key: containerRuntimeEndpoint]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l image-service-endpoint -d 'CRI socket of the image service, if another [key: imageServiceEndpoint]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l runtime-request-timeout -d 'Deadline of runtime calls [key: runtimeRequestTimeout]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cgroup-driver -d 'cgroupfs or systemd, where the runtime does not say [key: cgroupDriver]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cgroup-root -d 'Root cgroup of the pods [key: cgroupRoot]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cgroups-per-qos -d 'Put pods under one cgroup per QoS class [key: cgroupsPerQOS]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cpu-cfs-quota -d 'Enforce CPU limits by CFS quota [key: cpuCFSQuota]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cpu-cfs-quota-period -d 'CFS quota period [key: cpuCFSQuotaPeriod]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l serialize-image-pulls -d 'Pull one image at a time [key: serializeImagePulls]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l healthz-port -d 'Port of the health endpoint, 0 is off [key: healthzPort]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l healthz-bind-address -d 'Address of the health endpoint [key: healthzBindAddress]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l feature-gates -d 'Feature gates, Name=true or false [key: featureGates]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l logging-format -d 'text or json [key: logging.format]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l allowed-unsafe-sysctls -d 'Unsafe sysctls that pods may set [key: allowedUnsafeSysctls]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cluster-dns -d 'DNS servers of the cluster [key: clusterDNS]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l cluster-domain -d 'DNS domain of the cluster [key: clusterDomain]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l container-log-max-files -d 'Most log files of a container [key: containerLogMaxFiles]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l container-log-max-size -d 'Size at which a container log is rotated [key: containerLogMaxSize]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l enforce-node-allocatable -d 'What node allocatable is enforced on [key: enforceNodeAllocatable]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l kube-reserved -d 'Resources kept for Kubernetes\' daemons [key: kubeReserved]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l kube-reserved-cgroup -d 'Cgroup of --kube-reserved [key: kubeReservedCgroup]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l max-pods -d 'Most pods on the node [key: maxPods]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l oom-score-adj -d 'The agent\'s own oom_score_adj [key: oomScoreAdj]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l pod-max-pids -d 'Most processes in a pod [key: podPidsLimit]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l pods-per-core -d 'Most pods per CPU core [key: podsPerCore]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l registry-burst -d 'Burst over --registry-qps [key: registryBurst]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l registry-qps -d 'Image pulls per second [key: registryPullQPS]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l resolv-conf -d 'Resolver file for pods [key: resolvConf]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l system-reserved -d 'Resources kept for the system [key: systemReserved]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l system-reserved-cgroup -d 'Cgroup of --system-reserved [key: systemReservedCgroup]' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l minimum-container-ttl-duration -d 'Least age of a dead container that is removed' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l maximum-dead-containers -d 'Most dead containers on the node; negative is no limit' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -l maximum-dead-containers-per-container -d 'Most dead instances kept of each container' -r
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodectl -n "__fish_nodectl_using_subcommand run" -s V -l version -d 'Print version'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "pods" -d 'List the pods of the agent on this node'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "explain" -d 'Say where a pod stands: its step, last error, and what comes next'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "cri" -d 'Look into a container runtime, with crictl\'s verbs and flags'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "config" -d 'Print default configuration, or check configuration files'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "completions" -d 'Write a completion script for a shell to standard output'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "run" -d 'Run the node agent in kubelet\'s place'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and not __fish_seen_subcommand_from pods explain cri config completions run help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "version" -d 'Show the runtime\'s name and versions'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "info" -d 'Show the runtime\'s state, configuration and handlers'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "ps" -d 'List containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "pods" -d 'List pods'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "images" -d 'List images'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "inspect" -d 'Show all about containers'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "inspectp" -d 'Show all about pods'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "inspecti" -d 'Show all about images'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "exec" -d 'Run a command in a container, or in each of several'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "attach" -d 'Attach to a container\'s main process'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "port-forward" -d 'Forward local ports to a pod'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "imagefsinfo" -d 'Show where images are stored and what they take'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "runtime-config" -d 'Show what the runtime tells the agent to do: the cgroup driver'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from cri" -f -a "config" -d 'Show and change the client\'s configuration, /etc/crictl.yaml'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "defaults" -d 'Print the KubeletConfiguration that is in force where nothing is configured, as YAML'
complete -c nodectl -n "__fish_nodectl_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "validate" -d 'Check KubeletConfiguration files: exit code 0 if all are valid, else 2'
