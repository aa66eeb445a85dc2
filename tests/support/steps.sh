# Timed steps of a script, which sources this file:
#
#   step NAME COMMAND...    runs a command
#   begin NAME COMMAND...   starts a command in the background; its output goes to a file
#   finish NAME             waits for it
#   end_with_usage SCRIPT ARGUMENT
#                           ends SCRIPT, which has no such argument, with the comment at its head
#
# A step that fails ends the script. When the script ends, the times of the steps are printed as a
# table. The script sets `target_dir`.

# --help is answered with status 0, and an unknown argument with status 2.
end_with_usage() {
    local usage
    usage=$(sed -n '2,/^set / s/^# \{0,1\}//p' "$1")
    case $2 in
        -h | --help) echo "$usage" && exit 0 ;;
        *) echo "$usage" >&2 && exit 2 ;;
    esac
}

step_times=()
step_name=
# The process that `begin` has started, by its name.
declare -A step_processes=()

# Processor seconds of all children that have ended.
processor_seconds() {
    local fields
    read -ra fields <"/proc/$$/stat"
    echo $(((fields[15] + fields[16]) / $(getconf CLK_TCK)))
}

step() {
    step_name=$1
    shift
    printf '\n== %s\n' "$step_name"
    local began=$SECONDS processor
    processor=$(processor_seconds)
    "$@" # not as a condition, in which failures within functions are ignored
    add_step_time "$step_name" $((SECONDS - began)) $(($(processor_seconds) - processor))
    step_name=
}

add_step_time() {
    local line
    printf -v line '%-50s %8d s %8d s' "$@"
    step_times+=("$line")
}

begin() {
    local name=$1
    shift
    mkdir -p "$target_dir/test-logs"
    "$@" >"$target_dir/test-logs/$name.log" 2>&1 &
    step_processes[$name]=$!
}

finish() {
    if ! wait "${step_processes[$1]}"; then
        cat "$target_dir/test-logs/$1.log" >&2
        echo "error: $1 failed" >&2
        exit 1
    fi
    unset "step_processes[$1]"
}

print_step_times() {
    local process
    for process in "${step_processes[@]}"; do
        kill "$process" 2>/dev/null || true
    done
    ((${#step_times[@]})) || return 0
    printf '\n%-50s %10s %10s\n' step 'wall time' processors
    add_step_time all $SECONDS "$(processor_seconds)"
    printf '%s\n' "${step_times[@]}"
    [[ -z $step_name ]] || printf 'failed: %s\n' "$step_name"
}

trap print_step_times EXIT
