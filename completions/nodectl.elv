# elvish completion for nodectl. The program itself is asked at each press of Tab, as it knows its flags and
# the runtime's containers, pods and images.
use str

set edit:completion:arg-completer[nodectl] = {|@words|
    var answer = [(try { nodectl __complete elvish '='$words[-1] (all $words[..-1]) 2>/dev/null } catch e { nop })]
    if (eq $answer []) {
        nop
    } elif (eq $answer[0] files) {
        edit:complete-filename $words[-1]
    } else {
        for line $answer[1..] {
            var parts = [(str:split "\t" $line)]
            if (== (count $parts) 1) {
                put $parts[0]
            } else {
                edit:complex-candidate $parts[0] &display=$parts[0]'  -- '$parts[1]
            }
        }
    }
}
