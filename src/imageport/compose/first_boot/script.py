r"""``firstboot.cmd``: the plan as plain text for cmd.exe, runnable without any helper program.

Rules that keep it free of cmd.exe's traps: delayed expansion is off (paths may hold ``!``); no
variable is set and read within one block, because cmd expands a block before it runs it, so there
are labels instead of blocks; redirections stand before ``echo`` (``echo 1>file`` would redirect
handle 1); ERRORLEVEL is kept before anything else, because ``set`` resets it in a .cmd file (though
not in a .bat); only names checked by `FirstBootPlan.add` are written into it.

The service manager ends a process that never reports itself as started, so the service process
only starts a child, which lives on.
"""

from __future__ import annotations

from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    INSTALL_AGENT,
    REMOVE_OVERRIDE,
    REMOVE_SERVICE,
    RESTORE_SERVICE,
    RESTORE_VALUE,
    WAIT_DEVICES,
    FirstBootPlan,
    PlanStep,
)

IMAGE_PATH = "%SystemRoot%\\System32\\cmd.exe /d /c %SystemRoot%\\ImageportFirstBoot\\firstboot.cmd"
DONE = "imageport-firstboot: done"
FAILED = "imageport-firstboot: failed"
_INSTALLING = {WAIT_DEVICES, ADD_DRIVER, INSTALL_AGENT}

_HEAD = r"""@echo off
rem imageport first boot: installs staged drivers, puts held services back, then shuts down.
rem It removes its own service; this folder stays for the verdict and may be deleted afterwards.
setlocal EnableExtensions DisableDelayedExpansion
set "HERE=%~dp0"
set "SYS=%SystemRoot%\System32"
set "LOG=%HERE%log.txt"
set "STEPS=%HERE%steps.txt"
set "RESULT=%HERE%result.tmp"
set "HOW=/s"
set "FAILED=0"
set "REASON=none"
if /i "%~1"=="run" goto run
if /i "%~1"=="watch" goto watch
{agent_entry}start "" /b "%SYS%\cmd.exe" /d /c ""%~f0" watch"
start "" /b "%SYS%\cmd.exe" /d /c ""%~f0" run"
exit /b 0

:run
if exist "%HERE%result.txt" exit /b 0
set "ATTEMPTS=0"
if exist "%HERE%attempts.txt" set /p ATTEMPTS=<"%HERE%attempts.txt"
set /a ATTEMPTS+=1
>"%HERE%attempts.txt" echo %ATTEMPTS%
>>"%LOG%" echo %DATE% %TIME% attempt %ATTEMPTS% of {attempts}
>"%STEPS%" echo attempts=%ATTEMPTS%
"%SYS%\mode.com" COM1: BAUD=115200 PARITY=N DATA=8 STOP=1 >nul 2>&1
if %ATTEMPTS% GTR {attempts} goto give_up
"""

_BETWEEN = r"""if "%FAILED%"=="0" goto restore
if %ATTEMPTS% GEQ {attempts} goto restore
>>"%LOG%" echo %DATE% %TIME% a required step failed, starting again
set "HOW=/r"
goto power

:give_up
set "FAILED=1"
set "REASON=attempts"
>>"%LOG%" echo %DATE% %TIME% no attempt left

:restore
"""

_TAIL = r""">>"%LOG%" echo %DATE% %TIME% finished, failed=%FAILED%
if "%FAILED%"=="0" goto say_done
>"%RESULT%" echo state=failed
>>"%RESULT%" type "%STEPS%"
>COM1 echo {failed_text} %REASON%
goto finish

:say_done
>"%RESULT%" echo state=done
>>"%RESULT%" type "%STEPS%"
>COM1 echo {done_text}

:finish
if not exist "%HERE%result.txt" move "%RESULT%" "%HERE%result.txt" >nul

:power
rem A system that is still starting refuses to shut down: asked again for some minutes.
set "TRIES=20"
:power_again
"%SYS%\shutdown.exe" %HOW% /f /t 0 >nul 2>&1
if not errorlevel 1 exit /b 0
"%SYS%\ping.exe" -n 16 127.0.0.1 >nul
set /a TRIES-=1
if %TRIES% GTR 0 goto power_again
exit /b 1

:watch
rem ping is the clock that works without a console and without a network.
"%SYS%\ping.exe" -n {deadline} 127.0.0.1 >nul
if exist "%HERE%result.txt" exit /b 0
rem Whatever hangs holds the log open, and cmd runs nothing whose output it cannot open: so this
rem has files of its own. What was held is put back here too.
set "LOG=%HERE%watch.txt"
set "STEPS=%HERE%watch-steps.txt"
set "RESULT=%HERE%watch-result.tmp"
set "FAILED=1"
set "REASON=deadline"
>>"%LOG%" echo %DATE% %TIME% deadline of {deadline} s passed
copy /y "%HERE%steps.txt" "%STEPS%" >nul 2>&1
goto restore

:wait_devices
rem The device installation service runs only while devices are being installed.
"%SYS%\pnputil.exe" /scan-devices >>"%LOG%" 2>&1
set /a ROUNDS=%~3/5+1
:wait_round
"%SYS%\ping.exe" -n 6 127.0.0.1 >nul
set /a ROUNDS-=1
if %ROUNDS% LEQ 0 goto wait_over
"%SYS%\sc.exe" query DeviceInstall 2>nul | "%SYS%\find.exe" "RUNNING" >nul
if not errorlevel 1 goto wait_round
:wait_over
set "CODE=0"
goto note

:add_driver
"%SYS%\pnputil.exe" /add-driver "%HERE%drivers\%~3" /install >>"%LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
rem 259: staged, no such device present; 3010 and 1641: staged, a restart completes it.
if "%CODE%"=="259" set "CODE=0"
if "%CODE%"=="3010" set "CODE=0"
if "%CODE%"=="1641" set "CODE=0"
goto note

:set_dword
"%SYS%\reg.exe" add "HKLM\SYSTEM\%~3" /v "%~4" /t REG_DWORD /d %~5 /f >>"%LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
goto note

:delete_value
"%SYS%\reg.exe" delete "HKLM\SYSTEM\%~3" /v "%~4" /f >>"%LOG%" 2>&1
"%SYS%\reg.exe" query "HKLM\SYSTEM\%~3" /v "%~4" >nul 2>&1
goto note_gone

:delete_key
"%SYS%\reg.exe" delete "HKLM\SYSTEM\%~3" /f >>"%LOG%" 2>&1
"%SYS%\reg.exe" query "HKLM\SYSTEM\%~3" >nul 2>&1
goto note_gone

:note_gone
rem What counts is that it is no longer there (the query fails), also when it never was.
set "FOUND=%ERRORLEVEL%"
set "CODE=1"
if not "%FOUND%"=="0" set "CODE=0"
goto note

:note
>>"%LOG%" echo %DATE% %TIME% step %~1 ended with %CODE%
if "%CODE%"=="0" goto note_ok
>>"%STEPS%" echo step.%~1=failed %CODE%
if /i not "%~2"=="required" exit /b 0
set "FAILED=1"
if "%REASON%"=="none" set "REASON=step-%~1"
exit /b 0

:note_ok
>>"%STEPS%" echo step.%~1=ok
exit /b 0
"""

_AGENT_ENTRY = """if /i "%~1"=="agent" goto agent
"""

_AGENT = r"""
:install_agent
rem Run beside and waited for: an installer that hangs must not cost the boot its deadline.
del /q "%HERE%agent.code" >nul 2>&1
start "" /b "%SYS%\cmd.exe" /d /c ""%HERE%firstboot.cmd" agent "%~3""
set "ROUNDS={agent_rounds}"
:agent_round
"%SYS%\ping.exe" -n 6 127.0.0.1 >nul
if exist "%HERE%agent.code" goto agent_over
set /a ROUNDS-=1
if %ROUNDS% GTR 0 goto agent_round
set "CODE=timeout"
goto note
:agent_over
set "CODE=unknown"
set /p CODE=<"%HERE%agent.code"
rem 3010 and 1641: installed, a restart completes it.
if "%CODE%"=="3010" set "CODE=0"
if "%CODE%"=="1641" set "CODE=0"
goto note

:agent
rem The code appears whole or not at all. The installer needs no network; its log stays here.
"%SYS%\msiexec.exe" /i "%HERE%agent\%~2" /qn /norestart /l*v "%HERE%agent.log"
>"%HERE%agent.tmp" echo %ERRORLEVEL%
move /y "%HERE%agent.tmp" "%HERE%agent.code" >nul
exit /b 0
"""
_AGENT_SECONDS = 600
"""Half of the default deadline: the agent is optional, so most of the boot is not its own."""
_ROUND_SECONDS = 5


def render_script(plan: FirstBootPlan, control_sets: tuple[str, ...]) -> bytes:
    """Return the script for an ordered plan, ASCII with CRLF."""
    installing = [s for s in plan.steps if s.verb in _INSTALLING]
    restoring = [s for s in plan.steps if s.verb not in _INSTALLING]
    has_agent = any(step.verb == INSTALL_AGENT for step in plan.steps)
    facts = {
        "{attempts}": str(plan.attempts),
        "{deadline}": str(plan.deadline_seconds),
        "{done_text}": DONE,
        "{failed_text}": FAILED,
        "{agent_entry}": _AGENT_ENTRY if has_agent else "",
        "{agent_rounds}": str(_agent_seconds(plan) // _ROUND_SECONDS),
    }
    text = _HEAD + _calls(installing, control_sets) + _BETWEEN
    text += _calls(restoring, control_sets) + _TAIL + (_AGENT if has_agent else "")
    for mark, value in facts.items():
        text = text.replace(mark, value)
    return text.replace("\n", "\r\n").encode("ascii")


def _agent_seconds(plan: FirstBootPlan) -> int:
    """Return how long the agent's installer may take: never more than half of the deadline."""
    return min(_AGENT_SECONDS, plan.deadline_seconds // 2)


def _calls(steps: list[PlanStep], control_sets: tuple[str, ...]) -> str:
    lines = [line for step in steps for line in _call(step, control_sets)]
    return "".join(line + "\n" for line in lines)


def _call(step: PlanStep, control_sets: tuple[str, ...]) -> list[str]:
    control_sets = step.control_sets or control_sets
    need = "required" if step.required else "optional"
    head = f"{step.number:02d} {need}"
    if step.verb == WAIT_DEVICES:
        return [f"call :wait_devices {head} {step.arguments[0]}"]
    if step.verb == ADD_DRIVER:
        return [f"call :add_driver {head} {step.arguments[0]}"]
    if step.verb == INSTALL_AGENT:
        return [f"call :install_agent {head} {step.arguments[0]}"]
    if step.verb == RESTORE_SERVICE:
        name, start = step.arguments
        return [
            f"call :set_dword {head} {control_set}\\Services\\{name} Start {start}"
            for control_set in control_sets
        ]
    if step.verb == RESTORE_VALUE:
        key, name, value = step.arguments
        verb = "delete_value" if value == "absent" else "set_dword"
        tail = "" if value == "absent" else f" {value.removeprefix('dword:')}"
        return [f"call :{verb} {head} {place}\\{key} {name}{tail}" for place in control_sets]
    if step.verb in {REMOVE_OVERRIDE, REMOVE_SERVICE}:
        below = "\\StartOverride" if step.verb == REMOVE_OVERRIDE else ""
        return [
            f"call :delete_key {head} {control_set}\\Services\\{step.arguments[0]}{below}"
            for control_set in control_sets
        ]
    raise AssertionError(step.verb)
