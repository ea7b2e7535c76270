@echo off
rem %1 MSI below agent. It needs no network; its log stays in the first-boot folder.
for %%F in ("%~dp0..") do set "FOLDER=%%~fF"
"%SystemRoot%\System32\msiexec.exe" /i "%FOLDER%\agent\%~1" /qn /norestart /l*v "%FOLDER%\agent.log"
set "CODE=%ERRORLEVEL%"
rem 3010 and 1641: installed, and the shutdown completes it.
if "%CODE%"=="3010" set "CODE=0"
if "%CODE%"=="1641" set "CODE=0"
exit /b %CODE%
