@echo off
rem imageport first boot: does what plan.txt says, puts held services back, then shuts down.
rem It removes its own service; this folder stays for the verdict and may be deleted afterwards.
setlocal EnableExtensions DisableDelayedExpansion
set "HERE=%~dp0"
set "SYS=%SystemRoot%\System32"
set "LOG=%HERE%log.txt"
set "STEPS=%HERE%steps.txt"
set "DONE=%HERE%done.txt"
set "RESULT=%HERE%result.tmp"
set "HOW=/s"
set "FAILED=0"
set "REASON=none"
set "WHY="
set "ROLE=%~1"
rem @settings
if /i "%~1"=="run" goto run
if /i "%~1"=="watch" goto watch
if /i "%~1"=="program" goto program
rem Here runs the service's own process. A restart that a step asked for is no new attempt.
set "START=attempt"
if exist "%HERE%restart.txt" set "START=continue"
del /q "%HERE%restart.txt" "%HERE%leaving.txt" "%HERE%taken.txt" >nul 2>&1
start "" /b "%SYS%\cmd.exe" /d /c ""%HERE%firstboot.cmd" watch %START%"
start "" /b "%SYS%\cmd.exe" /d /c ""%HERE%firstboot.cmd" run %START%"
exit /b 0

:run
if exist "%HERE%result.txt" goto once_more
set "ATTEMPTS=0"
set "RESTARTS=0"
if exist "%HERE%attempts.txt" set /p ATTEMPTS=<"%HERE%attempts.txt"
if exist "%HERE%restarts.txt" set /p RESTARTS=<"%HERE%restarts.txt"
if "%~2"=="attempt" set /a ATTEMPTS+=1
>"%HERE%attempts.txt" echo %ATTEMPTS%
>>"%LOG%" echo %DATE% %TIME% attempt %ATTEMPTS% of %MAX_ATTEMPTS% after %RESTARTS% restarts
>"%STEPS%" echo attempts=%ATTEMPTS%
>>"%STEPS%" echo restarts=%RESTARTS%
rem Without handshakes: what is written to a port that nobody reads must not wait.
"%SYS%\mode.com" COM1: BAUD=115200 PARITY=N DATA=8 STOP=1 XON=OFF ODSR=OFF OCTS=OFF >nul 2>&1
if not exist "%DONE%" goto first_step
for /f "usebackq tokens=1" %%N in ("%DONE%") do set "DONE_%%N=1"
for /f "usebackq tokens=1" %%N in ("%DONE%") do >>"%STEPS%" echo step.%%N=ok

:first_step
if %ATTEMPTS% GTR %MAX_ATTEMPTS% goto give_up
rem @steps

:steps_over
if "%FAILED%"=="0" goto restore
if %ATTEMPTS% GEQ %MAX_ATTEMPTS% goto restore
>>"%LOG%" echo %DATE% %TIME% a required step failed, starting again
set "HOW=/r"
goto power

:restart
set /a RESTARTS+=1
if %RESTARTS% GTR %MAX_RESTARTS% goto no_restart_left
>"%HERE%restarts.txt" echo %RESTARTS%
>"%HERE%restart.txt" echo %NUMBER%
>>"%LOG%" echo %DATE% %TIME% restart %RESTARTS%, which step %NUMBER% asks for
set "HOW=/r"
goto power

:no_restart_left
set "FAILED=1"
set "REASON=restarts"
>>"%LOG%" echo %DATE% %TIME% no restart left
goto restore

:once_more
rem It was over, and the machine was cut off before Windows had written the registry out: what ends
rem it is done again. The result stays as it is.
"%SYS%\find.exe" "state=done" "%HERE%result.txt" >nul 2>&1
if not errorlevel 1 goto restore
set "FAILED=1"
set "REASON=earlier"
goto restore

:give_up
set "FAILED=1"
set "REASON=attempts"
>>"%LOG%" echo %DATE% %TIME% no attempt left

:restore
rem @closing
>>"%LOG%" echo %DATE% %TIME% finished, failed=%FAILED%
if "%FAILED%"=="0" goto say_done
>"%RESULT%" echo state=failed
>>"%RESULT%" echo reason=%REASON%
>>"%RESULT%" type "%STEPS%"
>COM1 echo imageport-firstboot: failed %REASON%%WHY%
goto finish

:say_done
>"%RESULT%" echo state=done
>>"%RESULT%" type "%STEPS%"
>COM1 echo imageport-firstboot: done

:finish
if not exist "%HERE%result.txt" move "%RESULT%" "%HERE%result.txt" >nul

:power
rem The watch looks at this: a machine that is about to restart is not to be ended meanwhile.
if "%HOW%"=="/r" >"%HERE%leaving.txt" echo restart
rem A system that is still starting refuses to shut down: asked again for some minutes.
set "TRIES=20"
:power_again
"%SYS%\shutdown.exe" %HOW% /f /t 0 >nul 2>&1
if not errorlevel 1 exit /b 0
call :idle 15
set /a TRIES-=1
if %TRIES% GTR 0 goto power_again
exit /b 1

:stop
rem The watch has taken over.
exit /b 1

:idle
rem %1 seconds. ping is the clock that works without a console and without a network. Where it does
rem not work, it comes back at once, and the deadline must not: then waitfor waits, for nothing.
set /a ECHOES=%~1+1
"%SYS%\ping.exe" -n %ECHOES% 127.0.0.1 >nul 2>&1
if not errorlevel 1 exit /b 0
"%SYS%\waitfor.exe" /t %~1 Imageport%ROLE% >nul 2>&1
exit /b 0

:watch
set "ELAPSED=0"
if "%~2"=="attempt" goto watch_round
if exist "%HERE%elapsed.txt" set /p ELAPSED=<"%HERE%elapsed.txt"
rem Nobody sees how long the restart took: a minute stands for it.
set /a ELAPSED+=60
:watch_round
call :idle 10
if exist "%HERE%result.txt" exit /b 0
set /a ELAPSED+=10
>"%HERE%elapsed.txt" echo %ELAPSED%
if %ELAPSED% LSS %DEADLINE% goto watch_round
rem It is about to restart: asked for twenty times, every 15 s, and then some time to go down.
set /a LAST=%DEADLINE%+400
if exist "%HERE%leaving.txt" if %ELAPSED% LSS %LAST% goto watch_round
rem Whatever hangs holds the log open, and cmd runs nothing whose output it cannot open: so this
rem has files of its own. What was held is put back here too.
set "LOG=%HERE%watch.txt"
set "STEPS=%HERE%watch-steps.txt"
set "DONE=%HERE%watch-done.txt"
set "RESULT=%HERE%watch-result.tmp"
set "CURRENT=none"
if exist "%HERE%current.txt" set /p CURRENT=<"%HERE%current.txt"
set "FAILED=1"
set "REASON=deadline in step %CURRENT%"
>"%HERE%taken.txt" echo %CURRENT%
>>"%LOG%" echo %DATE% %TIME% deadline of %DEADLINE% s passed in step %CURRENT%
copy /y "%HERE%steps.txt" "%STEPS%" >nul 2>&1
goto restore

:begin
set "NUMBER=%~1"
set "NEED=%~2"
set "VERB=%~3"
set "CODE=0"
set "NEXT=on"
>"%HERE%current.txt" echo %NUMBER% %VERB%
exit /b 0

:end
>>"%LOG%" echo %DATE% %TIME% step %NUMBER% %VERB% ended with %CODE%
if "%CODE%"=="3010" set "NEXT=restart"
if "%CODE%"=="3010" goto end_ok
if "%CODE%"=="0" goto end_ok
>>"%STEPS%" echo step.%NUMBER%=failed %CODE%
>COM1 echo imageport-firstboot: step %NUMBER% %VERB% failed %CODE%
if /i not "%NEED%"=="required" goto end_over
set "FAILED=1"
set "NEXT=steps_over"
if not "%REASON%"=="none" goto end_over
set "REASON=step-%NUMBER%"
set "WHY= %VERB% code %CODE%"
goto end_over
:end_ok
>>"%STEPS%" echo step.%NUMBER%=ok
>>"%DONE%" echo %NUMBER%
>COM1 echo imageport-firstboot: step %NUMBER% %VERB% ok %CODE%
:end_over
if exist "%HERE%taken.txt" set "NEXT=stop"
exit /b 0

:beside
rem %1 program, %2 seconds, %3 its argument. Run beside and waited for: one that hangs must not cost
rem the boot its deadline.
del /q "%HERE%code-%NUMBER%.txt" >nul 2>&1
start "" /b "%SYS%\cmd.exe" /d /c ""%HERE%firstboot.cmd" program %NUMBER% %~1 %~3"
set /a ROUNDS=%~2/5+1
:beside_round
call :idle 5
if exist "%HERE%code-%NUMBER%.txt" goto beside_over
set /a ROUNDS-=1
if %ROUNDS% GTR 0 goto beside_round
set "CODE=timeout"
exit /b 0
:beside_over
set "CODE=unknown"
set /p CODE=<"%HERE%code-%NUMBER%.txt"
exit /b 0

:program
rem In a shell of its own, so that "exit" ends only that; the code appears whole or not at all. What
rem it says may hold secrets: it stays in this folder and is in no report.
"%SYS%\cmd.exe" /d /c ""%HERE%programs\%~3.cmd" %~4" <nul >"%HERE%output-%~2.txt" 2>&1
>"%HERE%code-%~2.tmp" echo %ERRORLEVEL%
move /y "%HERE%code-%~2.tmp" "%HERE%code-%~2.txt" >nul
exit /b 0

:wait_devices
"%SYS%\pnputil.exe" /scan-devices >>"%LOG%" 2>&1
set /a LIMIT=%~1+60
call :beside wait-devices %LIMIT% %~1
rem 0: nothing is left to install. 258: there still is; later steps say what is missing.
if "%CODE%"=="0" exit /b 0
if "%CODE%"=="258" goto wait_over
rem PowerShell cannot run here. The device installation service runs only while it installs.
>>"%LOG%" echo %DATE% %TIME% waiting by PowerShell ended with %CODE%, by the service now
set /a ROUNDS=%~1/5+1
:wait_round
call :idle 5
set /a ROUNDS-=1
if %ROUNDS% LEQ 0 goto wait_over
"%SYS%\sc.exe" query DeviceInstall 2>nul | "%SYS%\find.exe" "RUNNING" >nul
if not errorlevel 1 goto wait_round
:wait_over
set "CODE=0"
exit /b 0

:add_driver
"%SYS%\pnputil.exe" /add-driver "%HERE%drivers\%~1" /install >>"%LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
rem 259: staged, no such device present. 3010 and 1641: staged, and the shutdown completes it.
if "%CODE%"=="259" set "CODE=0"
if "%CODE%"=="3010" set "CODE=0"
if "%CODE%"=="1641" set "CODE=0"
exit /b 0

:remove_driver
"%SYS%\pnputil.exe" /delete-driver %~1 /uninstall >>"%LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
rem What counts is that it is no longer there, also when it never was.
if not exist "%SystemRoot%\INF\%~1" set "CODE=0"
exit /b 0

:reset_winsock
"%SYS%\netsh.exe" winsock reset >>"%LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
if "%CODE%"=="0" set "CODE=3010"
exit /b 0

:set_dword
"%SYS%\reg.exe" add "HKLM\SYSTEM\%~1" /v "%~2" /t REG_DWORD /d %~3 /f >>"%LOG%" 2>&1
if not "%ERRORLEVEL%"=="0" set "CODE=%ERRORLEVEL%"
exit /b 0

:delete_value
"%SYS%\reg.exe" delete "HKLM\SYSTEM\%~1" /v "%~2" /f >>"%LOG%" 2>&1
"%SYS%\reg.exe" query "HKLM\SYSTEM\%~1" /v "%~2" >nul 2>&1
if not errorlevel 1 set "CODE=1"
exit /b 0

:delete_key
rem What counts is that it is no longer there (the query fails), also when it never was.
"%SYS%\reg.exe" delete "HKLM\SYSTEM\%~1" /f >>"%LOG%" 2>&1
"%SYS%\reg.exe" query "HKLM\SYSTEM\%~1" >nul 2>&1
if not errorlevel 1 set "CODE=1"
exit /b 0

:set_ems
"%SYS%\bcdedit.exe" /emssettings EMSPORT:%~2 EMSBAUDRATE:115200 >>"%LOG%" 2>&1
if not "%ERRORLEVEL%"=="0" set "CODE=%ERRORLEVEL%"
"%SYS%\bcdedit.exe" /ems {default} %~1 >>"%LOG%" 2>&1
if not "%ERRORLEVEL%"=="0" set "CODE=%ERRORLEVEL%"
"%SYS%\bcdedit.exe" /bootems {bootmgr} %~1 >>"%LOG%" 2>&1
if not "%ERRORLEVEL%"=="0" set "CODE=%ERRORLEVEL%"
exit /b 0

:set_ems_switch
rem %1 on or off, %2 the switch (ems, bootems), %3 the object of the boot store.
rem /set, because /ems and /bootems take no settings object, as {emssettings} is one.
"%SYS%\bcdedit.exe" /set {%~3} %~2 %~1 >>"%LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
exit /b 0
